// The same with version 2 of the package, the last with the `headers` option: node follow-2.mjs URL
import EventSource from "eventsource-2";

const source = new EventSource(process.argv[2]);
source.onmessage = ({ data }) => console.log(data);
source.onerror = ({ status, message }) => console.error(`broken: ${status ?? ""} ${message ?? ""}`);
