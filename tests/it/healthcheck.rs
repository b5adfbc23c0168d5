//! `opencode-relay healthcheck`: finds the relay by its settings, and is sure of it.

use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::standin::StandIn;
use crate::support::bounded;
use crate::support::opencode::free_port;
use crate::support::relay::Relay;

/// Exit code, standard output, standard error.
async fn healthcheck(arguments: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_opencode-relay"));
    command.arg("healthcheck").args(arguments).env_clear().envs(env.iter().copied()).kill_on_drop(true);
    let output = command.output().await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn a_relay_is_found_by_its_settings() {
    bounded(async {
        let (standin, folder) = (StandIn::start("1.14.48").await, tempfile::tempdir().unwrap());
        let (all, unix) = (format!("0.0.0.0:{}", free_port()), format!("unix:{}/relay.sock", folder.path().display()));
        let url = standin.url();
        let arguments = ["--journal", "memory", "--upstream", &url, "--listen", &all, "--listen", &unix];
        let relay = Relay::start(&arguments, &[], Path::new("/")).await;
        standin.granted(1).await;
        for listen in [&all, &unix, relay.base().strip_prefix("http://").unwrap()] {
            let (code, out, error) = healthcheck(&[], &[("OPENCODE_RELAY_LISTEN", listen)]).await;
            assert_eq!((code, error.as_str()), (Some(0), ""), "{listen}");
            assert!(out.contains("is healthy") && out.lines().count() == 1, "{out}");
        }
        let file = folder.path().join("relay.toml");
        std::fs::write(&file, format!("listen = [{all:?}]\n")).unwrap();
        let quiet = healthcheck(&["--quiet", "--ready", "--config", file.to_str().unwrap()], &[]).await;
        assert_eq!(quiet, (Some(0), String::new(), String::new()));
        let (code, out, _) = healthcheck(&["--ready", relay.base()], &[]).await;
        assert!(code == Some(0) && out.contains("is ready"), "{out}");
    })
    .await;
}

#[tokio::test]
async fn a_relay_without_its_opencode_is_healthy_and_not_ready() {
    bounded(async {
        let upstream = format!("http://127.0.0.1:{}", free_port());
        let relay = Relay::start(&["--journal", "memory", "--upstream", &upstream], &[], Path::new("/")).await;
        assert_eq!(healthcheck(&[relay.base()], &[]).await.0, Some(0));
        let (code, out, error) = healthcheck(&["--ready", relay.base()], &[]).await;
        assert_eq!((code, out.as_str()), (Some(1), ""));
        assert!(error.contains(relay.base()) && error.contains("ready: ") && error.lines().count() == 1, "{error}");
    })
    .await;
}

#[tokio::test]
async fn others_are_not_taken_for_a_relay() {
    bounded(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answers = [
            ("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n\r\n{\"healthy\":true}", "is it opencode itself"),
            ("HTTP/1.1 401 Unauthorized\r\n\r\n", "401"),
            ("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{\"ok\":true}", "find a relay"),
            ("HTTP/1.1 404 Not Found\r\ncontent-type: a\u{202e}b\r\n\r\n", "404"),
            (
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{\"healthy\":true}",
                "read the answer",
            ),
        ];
        for (answer, words) in answers {
            let serve = async {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut request = [0; 4_096];
                let read = socket.read(&mut request).await.unwrap();
                let request = String::from_utf8_lossy(&request[..read]).to_ascii_lowercase();
                assert!(
                    request.contains("user-agent: opencode-relay/") && !request.contains("authorization"),
                    "{request}"
                );
                socket.write_all(answer.as_bytes()).await.unwrap();
                socket.shutdown().await.unwrap();
            };
            let arguments = [&*url];
            let ask = healthcheck(&arguments, &[("OPENCODE_SERVER_PASSWORD", "very-secret")]);
            let ((code, out, error), ()) = tokio::join!(ask, serve);
            assert_eq!((code, out.as_str()), (Some(1), ""), "{answer}: {error}");
            assert!(error.contains(words) && error.contains(&url) && !error.contains('\u{202e}'), "{answer}: {error}");
        }
        // The backlog takes the connection, and nobody answers.
        let before = Instant::now();
        let (code, _, error) = healthcheck(&[&url, "--timeout", "300ms"], &[]).await;
        assert!(code == Some(1) && error.contains("get an answer"), "{error}");
        assert!(before.elapsed() < Duration::from_secs(4), "{:?}", before.elapsed());
        drop(listener);
        let (code, _, error) = healthcheck(&[&url], &[]).await;
        assert!(code == Some(1) && error.contains("no relay listens there"), "{error}");
        assert_eq!(healthcheck(&["--timeout", "5"], &[]).await.0, Some(2));
    })
    .await;
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn over_tls_it_is_sure_whom_it_asks() {
    use crate::listen::certificates::Files;

    bounded(async {
        let standin = StandIn::start("1.14.48").await;
        let (files, _) = Files::new();
        let (other, _) = Files::new();
        let [certificate, key, others] =
            [&files.certificate, &files.key, &other.certificate].map(|path| path.to_str().unwrap());
        // As `openssl req -x509` makes them: one that may sign others too.
        for may_sign in [false, true] {
            if may_sign {
                let pair = rcgen::KeyPair::generate().unwrap();
                let mut wanted = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
                wanted.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
                std::fs::write(certificate, wanted.self_signed(&pair).unwrap().pem()).unwrap();
                std::fs::write(key, pair.serialize_pem()).unwrap();
            }
            let (url, port) = (standin.url(), free_port());
            let listen = format!("https://0.0.0.0:{port}");
            let mut arguments = vec!["--journal", "memory", "--upstream", &url, "--listen", &listen];
            arguments.extend(["--tls-certificate", certificate, "--tls-key", key]);
            let _relay = Relay::start(&arguments, &[], Path::new("/")).await;
            let address = format!("https://localhost:{port}");
            let (code, out, error) = healthcheck(&[&address], &[("SSL_CERT_FILE", certificate)]).await;
            assert_eq!((code, error.as_str()), (Some(0), ""), "{may_sign} {out}");
            for (arguments, trusted, words) in [
                (vec![&*address], others, "is not trusted here"),
                (vec![&*address], "/nowhere", "SSL_CERT_FILE"),
                // By its settings it is known by its address only, which is not in the certificate.
                (vec![], certificate, "ask by a name that stands in the certificate"),
            ] {
                let env = [("SSL_CERT_FILE", trusted), ("OPENCODE_RELAY_LISTEN", &listen)];
                let (code, _, error) = healthcheck(&arguments, &env).await;
                assert!(code == Some(1) && error.contains(words), "{may_sign} {trusted}: {error}");
            }
            let plain = format!("http://127.0.0.1:{port}");
            assert_eq!(healthcheck(&[&plain], &[]).await.0, Some(1));
        }
    })
    .await;
}
