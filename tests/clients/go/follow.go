// Follows an event stream for ever, an event a line: go run follow.go URL
package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"
)

// A heartbeat comes every 10 s: who is silent for longer is gone.
const silence = 25 * time.Second

func main() {
	last := ""
	for {
		err := follow(os.Args[1], &last)
		fmt.Fprintf(os.Stderr, "broken: %v\n", err)
		time.Sleep(500 * time.Millisecond)
	}
}

func follow(url string, last *string) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	alarm := time.AfterFunc(silence, cancel)
	defer alarm.Stop()

	request, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	if err != nil {
		return err
	}
	if *last != "" {
		request.Header.Set("Last-Event-ID", *last)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s", response.Status)
	}

	var id, data string
	lines := bufio.NewScanner(response.Body)
	// The default of 64 KiB is less than an event with a tool's output in it.
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		alarm.Reset(silence)
		name, value, _ := strings.Cut(lines.Text(), ": ")
		switch name {
		case "id":
			id = value
		case "data":
			data = value
		case "": // The frame is whole: only now it counts as seen.
			fmt.Println(data)
			*last, data = id, ""
		}
	}
	return fmt.Errorf("the stream ended: %v", lines.Err())
}
