package main

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Println("E2E WRONG powercut:", err)
		os.Exit(1)
	}
}

// run takes "write SOCKET SEED PID" or "verify IMAGE SEED WRITES".
func run(args []string) error {
	if len(args) != 4 {
		return fmt.Errorf("usage: powercut write SOCKET SEED PID | verify IMAGE SEED WRITES")
	}
	seed, err := strconv.ParseUint(args[2], 10, 64)
	if err != nil {
		return err
	}
	number, err := strconv.ParseUint(args[3], 10, 64)
	if err != nil {
		return err
	}
	switch args[0] {
	case "write":
		return writeForever(args[1], seed, int(number))
	case "verify":
		return verifyFile(args[1], seed, number)
	}
	return fmt.Errorf("%s is neither write nor verify", args[0])
}

func verifyFile(path string, seed, flushed uint64) error {
	image, err := os.Open(path)
	if err != nil {
		return err
	}
	defer image.Close()
	kept, err := verify(image, seed, flushed)
	if err == nil {
		fmt.Printf("E2E FACT all of %d pages written up to %d are there\n", kept, flushed)
	}
	return err
}

// cookieFlush is the cookie of a FLUSH; those of writes are their numbers.
const cookieFlush = 0

// writeForever makes one batch after the other. A FLUSH is under way together with the batch behind it, so that stores meet the
// write-back of their pages, and covers the batches before it, whose replies have come.
func writeForever(socket string, seed uint64, server int) error {
	c, err := dial(socket)
	if err != nil {
		return err
	}
	page := make([]byte, pageBytes)
	for h := newHistory(seed); ; {
		covered := h.next - 1
		writes, flush := h.batch()
		replies := len(writes)
		if flush {
			replies++
			if err := c.request(cmdFlush, cookieFlush, 0, nil); err != nil {
				return err
			}
		}
		for _, w := range writes {
			fill(page, w)
			if err := c.request(cmdWrite, w.number, w.page*pageBytes, page); err != nil {
				return err
			}
		}
		if err := c.out.Flush(); err != nil {
			return err
		}
		for range replies {
			cookie, err := c.reply()
			if err != nil {
				return err
			}
			if cookie == cookieFlush {
				fmt.Printf("E2E FLUSHED %d mapped %d\n", covered, mappedKiB(server))
			}
		}
	}
}

// mappedKiB is how much of an image the server has touched through a mapping. proc(5), smaps.
func mappedKiB(server int) (sum int) {
	file, err := os.Open(fmt.Sprintf("/proc/%d/smaps", server))
	if err != nil {
		return 0
	}
	defer file.Close()
	image := false
	for lines := bufio.NewScanner(file); lines.Scan(); {
		fields := strings.Fields(lines.Text())
		switch {
		case len(fields) > 1 && fields[0] == "Rss:" && image:
			n, _ := strconv.Atoi(fields[1])
			sum += n
		case len(fields) > 0 && !strings.HasSuffix(fields[0], ":"):
			image = strings.HasSuffix(lines.Text(), ".img")
		}
	}
	return sum
}
