package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// measure is one way to load a path.
type measure struct {
	name string
	unit string // of a sample's cost
	// load loads the path and returns the work done: requests or bytes.
	load func(context.Context, *fabric, path, options) (float64, error)
	// cost is CPU time per work in unit.
	cost func(cpu time.Duration, work float64) float64
}

// sample is one measurement of one path.
type sample struct {
	Cost    float64 `json:"cost"`       // in the measure's unit
	Work    float64 `json:"work"`       // requests or bytes
	CPU     float64 `json:"cpuSeconds"` // busy time of all CPUs
	Elapsed float64 `json:"seconds"`
	Stolen  float64 `json:"stolen"` // share of the machine's time the hypervisor took, 0..1
	// Others is the part of CPU, 0..1, that was used by processes that are not
	// of this run.
	Others float64 `json:"others"`
	// MeanPacket is the size of what n2 received from the other nodes, in bytes
	// from the link layer on: segments of one stream that are still together, as
	// GSO has them, are one packet.
	MeanPacket float64 `json:"meanPacket"`
}

// describe is the sample in words, for the progress lines.
func (s sample) describe(m measure) string {
	return fmt.Sprintf("%.1f %s (%.0f in %.1f s, %.0f ms CPU, %.0f %% of it others', %.0f %% stolen)",
		s.Cost, m.unit, s.Work, s.Elapsed, s.CPU*1e3, s.Others*100, s.Stolen*100)
}

var keepAlive = measure{
	name: "keep-alive", unit: "us/request",
	load: func(ctx context.Context, f *fabric, p path, opt options) (float64, error) {
		return requests(ctx, f, p, opt)
	},
	cost: microsecondsEach,
}

var newConnection = measure{
	name: "new connection", unit: "us/request",
	load: func(ctx context.Context, f *fabric, p path, opt options) (float64, error) {
		return requests(ctx, f, p, opt, "-H", "Connection: close")
	},
	cost: microsecondsEach,
}

var stream = measure{
	name: "one TCP stream", unit: "ms/GB",
	load: sendStream,
	cost: func(cpu time.Duration, bytes float64) float64 {
		return float64(cpu.Milliseconds()) / (bytes / 1e9)
	},
}

func microsecondsEach(cpu time.Duration, requests float64) float64 {
	return float64(cpu.Microseconds()) / requests
}

// take loads p once and returns what it cost the whole machine, the load
// generator and the workload included.
func (m measure) take(ctx context.Context, f *fabric, p path, opt options) (sample, error) {
	othersBefore, err := othersCPU()
	if err != nil {
		return sample{}, err
	}
	before, err := readCPU()
	if err != nil {
		return sample{}, err
	}
	received, err := uplinkReceived(f.netns(nodeHost(2)))
	if err != nil {
		return sample{}, err
	}
	started := time.Now()
	work, err := m.load(ctx, f, p, opt)
	if err != nil {
		return sample{}, fmt.Errorf("%w%s", err, f.logs())
	}
	elapsed := time.Since(started)
	after, err := readCPU()
	if err != nil {
		return sample{}, err
	}
	othersAfter, err := othersCPU()
	if err != nil {
		return sample{}, err
	}
	receivedAfter, err := uplinkReceived(f.netns(nodeHost(2)))
	if err != nil {
		return sample{}, err
	}
	used := after.minus(before)
	if used.busy <= 0 {
		return sample{}, errors.New("no CPU time was counted: measure longer")
	}
	return sample{
		Cost:    m.cost(used.busy, work),
		Work:    work,
		CPU:     used.busy.Seconds(),
		Elapsed: elapsed.Seconds(),
		Stolen:  used.stolenShare(),
		Others:  max(0, float64(othersAfter-othersBefore)/float64(used.busy)),

		MeanPacket: float64(receivedAfter.bytes-received.bytes) / float64(max(1, receivedAfter.packets-received.packets)),
	}, nil
}

// requests runs wrk and returns the number of requests answered; a request
// that was not answered as it should be is an error.
func requests(ctx context.Context, f *fabric, p path, opt options, args ...string) (float64, error) {
	args = append(args, "-t", "1", "-c", strconv.Itoa(opt.connections), "-d", strconv.Itoa(opt.seconds)+"s",
		"--timeout", "10s", "http://"+p.target.String()+"/")
	out, err := outputIn(ctx, f.netns(p.from), "wrk", args...)
	if err != nil {
		return 0, err
	}
	return parseWrk(out)
}

var (
	wrkRequests = regexp.MustCompile(`(\d+) requests in `)
	wrkErrors   = regexp.MustCompile(`(?m)^\s*(Socket errors|Non-2xx).*$`)
)

// parseWrk returns the number of requests in wrk's report.
func parseWrk(out string) (float64, error) {
	if complaint := wrkErrors.FindString(out); complaint != "" {
		return 0, fmt.Errorf("wrk: %s", strings.TrimSpace(complaint))
	}
	match := wrkRequests.FindStringSubmatch(out)
	if match == nil {
		return 0, fmt.Errorf("wrk: no number of requests in %q", out)
	}
	n, err := strconv.ParseFloat(match[1], 64)
	if err != nil {
		return 0, fmt.Errorf("wrk: %w", err)
	}
	if n == 0 {
		return 0, fmt.Errorf("wrk: no request was answered")
	}
	return n, nil
}

// sendStream sends one bounded TCP stream and returns the bytes received.
func sendStream(ctx context.Context, f *fabric, p path, opt options) (float64, error) {
	out, err := outputIn(ctx, f.netns(p.from), "iperf3", "-J", "-c", p.target.Addr().String(),
		"-p", strconv.Itoa(streamPort), "-n", strconv.FormatInt(opt.streamBytes, 10))
	if err != nil {
		return 0, err
	}
	var report struct {
		End struct {
			Received struct {
				Bytes float64 `json:"bytes"`
			} `json:"sum_received"`
		} `json:"end"`
	}
	if err := json.Unmarshal([]byte(out), &report); err != nil {
		return 0, fmt.Errorf("iperf3 report: %w", err)
	}
	if report.End.Received.Bytes <= 0 {
		return 0, fmt.Errorf("iperf3 sent nothing: %s", tail(out))
	}
	return report.End.Received.Bytes, nil
}

// cpuTimes are times of all CPUs since boot.
type cpuTimes struct {
	busy   time.Duration // user, nice, system, irq, softirq
	idle   time.Duration // idle, iowait
	stolen time.Duration // by the hypervisor; not in busy
}

func (t cpuTimes) minus(o cpuTimes) cpuTimes {
	return cpuTimes{t.busy - o.busy, t.idle - o.idle, t.stolen - o.stolen}
}

// stolenShare is a part of the machine's time, 0..1.
func (t cpuTimes) stolenShare() float64 {
	total := t.busy + t.idle + t.stolen
	if total == 0 {
		return 0
	}
	return float64(t.stolen) / float64(total)
}

func readCPU() (cpuTimes, error) {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return cpuTimes{}, fmt.Errorf("read CPU times: %w", err)
	}
	return parseCPU(string(stat))
}

// parseCPU reads the first line of /proc/stat (proc_stat(5)), whose unit is
// 1/100 s on every architecture Go runs on.
func parseCPU(stat string) (cpuTimes, error) {
	line, _, _ := strings.Cut(stat, "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 || fields[0] != "cpu" {
		return cpuTimes{}, fmt.Errorf("read CPU times: unexpected line %q", line)
	}
	var t [8]time.Duration // user nice system idle iowait irq softirq steal
	for i := range t {
		ticks, err := strconv.ParseInt(fields[i+1], 10, 64)
		if err != nil {
			return cpuTimes{}, fmt.Errorf("read CPU times: %w", err)
		}
		t[i] = time.Duration(ticks) * (time.Second / 100)
	}
	return cpuTimes{
		busy:   t[0] + t[1] + t[2] + t[5] + t[6],
		idle:   t[3] + t[4],
		stolen: t[7],
	}, nil
}
