// A reader of an event stream as the Go copies of the generated SDK are: a Scanner with its 64 KiB limit,
// frames with an event name passed over, a frame without data an error. Prints each event's data in a line.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
)

func main() {
	if len(os.Args) != 2 {
		fail(fmt.Errorf("usage: %s URL", os.Args[0]))
	}
	request, err := http.NewRequest("GET", os.Args[1], nil)
	if err != nil {
		fail(err)
	}
	request.Header.Set("Accept", "text/event-stream")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		fail(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		fail(fmt.Errorf("%s", response.Status))
	}
	fail(read(response))
}

func read(response *http.Response) error {
	var name, data []byte
	scanner := bufio.NewScanner(response.Body)
	for scanner.Scan() {
		line := scanner.Bytes()
		if len(line) == 0 {
			if len(name) == 0 {
				if err := show(data); err != nil {
					return err
				}
			}
			name, data = nil, nil
			continue
		}
		field, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(field) {
		case "event":
			name = append(name, value...)
		case "data":
			data = append(data, value...)
		}
	}
	if err := scanner.Err(); err != nil {
		return err
	}
	return fmt.Errorf("the stream ended")
}

func show(data []byte) error {
	var event struct {
		Type       string
		Properties map[string]interface{}
	}
	if err := json.Unmarshal(data, &event); err != nil {
		return fmt.Errorf("a frame that is no event: %w: %q", err, data)
	}
	_, err := fmt.Printf("%s\n", data)
	return err
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
