//! A frame of the upstream's stream becomes an event: its words are those that JSON says, its bytes are kept, and what
//! clients get of it is read back as the same.

#![no_main]

use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use opencode_relay::event::{Cursor, Epoch, Event, Form, Frame, Seq, put_frame};
use opencode_relay::ingest::stream::Parser;
use serde_json::Value;

fuzz_target!(|input: &[u8]| {
    let Ok(event) = Event::read(Bytes::copy_from_slice(input)) else { return };
    assert_eq!(event.global.len(), input.len());
    assert!(!event.global.iter().any(|byte| matches!(byte, b'\n' | b'\r')), "a frame of ours would break");
    let differ = event.global.iter().zip(input).filter(|(kept, given)| kept != given);
    assert!(differ.into_iter().all(|(_, given)| matches!(given, b'\n' | b'\r')), "other bytes changed too");

    // Numbers beyond a double and the like are JSON to us, who only pass them on, and nothing to `Value`.
    if let Ok(value) = serde_json::from_slice::<Value>(input) {
        let payload = &value["payload"];
        assert_eq!(payload["type"], *event.kind);
        assert_eq!(value["directory"].as_str(), event.directory.as_deref());
        assert_eq!(serde_json::from_slice::<Value>(&event.payload()).ok().as_ref(), Some(payload));
        if let Some(session) = &event.session {
            let told = [&payload["syncEvent"]["aggregateID"], &payload["properties"]["sessionID"]];
            assert!(told.into_iter().any(|told| *told == **session), "an invented session");
        }
    }
    event.parts().expect("what was read once is read again");
    let _ = event.project();

    let cursor = Cursor { epoch: Epoch::new(1), seq: Seq(1) };
    for data in [event.global.clone(), event.payload()] {
        let frame = Frame::new(cursor, &data);
        assert_eq!(frame.data(), data);
        for ids in [true, false] {
            let (mut frames, mut bytes) = (Vec::new(), BytesMut::new());
            put_frame(&data, cursor, Form { ids, ..Frame::FORM }, event.origin, 0, &mut bytes);
            assert!(!ids || bytes == frame.bytes(), "the ready-made frame is another");
            Parser::default().push(&bytes, &mut frames);
            assert_eq!(frames, std::slice::from_ref(&data), "a client reads something else");
        }
    }
    let again = Event::read(event.global.clone()).expect("our own bytes are read again");
    assert_eq!((again.kind, again.directory, again.session), (event.kind, event.directory, event.session));
    assert_eq!(again.payload, event.payload);
});
