# Follows an event stream for ever, an event a line: python follow.py URL
import sys
import time

import httpx
from httpx_sse import connect_sse

url, last = sys.argv[1], None
# A heartbeat comes every 10 s: who is silent for longer is gone.
with httpx.Client(timeout=httpx.Timeout(10, read=25)) as client:
    while True:
        headers = {"Last-Event-ID": last} if last else {}
        try:
            with connect_sse(client, "GET", url, headers=headers) as source:
                source.response.raise_for_status()
                for event in source.iter_sse():
                    print(event.data, flush=True)
                    last = event.id or last
        except httpx.HTTPError as error:
            print(f"broken: {error}", file=sys.stderr)
        time.sleep(0.5)
