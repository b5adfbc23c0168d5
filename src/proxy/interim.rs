//! Interim answers (1xx) on their way from opencode to the client.

use http::{Request, StatusCode};
use hyper::ext::on_informational;

use super::caller::Interim;
use super::gate::Gate;
use super::headers;

/// Hands interim answers to the `gate` of the request's body, and to the client. hyper calls this while
/// the request waits for its answer, before it gives the final one out. 101 is final, and never comes here.
pub(super) fn hear<B>(request: &mut Request<B>, gate: Option<Gate>, interim: Option<Interim>) {
    if gate.is_none() && interim.is_none() {
        return;
    }
    on_informational(request, move |answer| {
        if answer.status() == StatusCode::CONTINUE {
            // The client gets its own when its body is asked for; one who did not ask for it needs none.
            if let Some(gate) = &gate {
                gate.open();
            }
        } else if let Some(interim) = &interim {
            let mut fields = answer.headers().clone();
            headers::strip_interim(&mut fields);
            interim(answer.status(), &fields);
        }
    });
}
