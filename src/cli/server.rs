//! Which server a command asks, and with which password.

use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use crate::client::{Client, Place, PlaceError};
use crate::config::{self, Credentials, Input, Mistake, Mistakes};
use crate::http::Endpoint;

/// The server and the password.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Server {
    /// The server, http://HOST:PORT, https://HOST:PORT or unix:PATH [default: where a relay with these settings listens,
    /// http://127.0.0.1:4097]
    #[arg(value_name = "URL")]
    pub url: Option<String>,

    /// A file whose first line is the password; instead of OPENCODE_SERVER_PASSWORD
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<String>,

    /// The user of that password; instead of OPENCODE_SERVER_USERNAME [default: opencode]
    #[arg(long, value_name = "NAME")]
    pub username: Option<String>,

    /// The TOML file with the relay's settings; its `listen` and its password are used
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

impl Server {
    /// Who is asked. Without a URL that is where a relay with the same settings listens.
    ///
    /// # Errors
    ///
    /// All mistakes that were made; the exit code for them is 2.
    pub fn client(&self, environment: impl IntoIterator<Item = (OsString, OsString)>) -> Result<Client, Mistakes> {
        let flags = [("password_file", &self.password_file), ("username", &self.username)];
        let input = Input {
            flags: flags.into_iter().filter_map(|(key, value)| Some((key, vec![value.clone()?]))).collect(),
            file: self.config.clone(),
            command: Vec::new(),
            environment: environment.into_iter().collect(),
            passed: Vec::new(),
        };
        let (listen, credentials) = config::load_client(&input)?;
        let place = match &self.url {
            Some(url) => url.parse().map_err(|error: PlaceError| {
                let remedy = "Write http://HOST:PORT, https://HOST:PORT or unix:PATH".to_owned();
                let problem = error.to_string();
                Mistakes(vec![Mistake { key: "URL".to_owned(), value: None, origin: None, problem, remedy }])
            })?,
            // Plain ones first: nothing has to be verified on this machine.
            None => {
                let plain = listen.iter().find(|endpoint| !is_tls(endpoint));
                plain.or(listen.first()).map_or(Place::Http("127.0.0.1:4097".into()), place)
            }
        };
        Ok(Client { place, authorization: credentials.as_ref().and_then(Credentials::authorization) })
    }
}

fn is_tls(endpoint: &Endpoint) -> bool {
    matches!(endpoint, Endpoint::Tcp { is_tls: true, .. })
}

/// How a relay that listens there is reached from its own machine.
fn place(endpoint: &Endpoint) -> Place {
    match endpoint {
        Endpoint::Tcp { address, is_tls } => {
            let mut address = *address;
            match address.ip() {
                IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
                IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
                _ => {}
            }
            let authority = address.to_string().into();
            if *is_tls { Place::Https(authority) } else { Place::Http(authority) }
        }
        Endpoint::Unix { path } => Place::Unix(path.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_relay_of_this_machine_is_found() {
        for (listen, expected) in [
            ("", "http://127.0.0.1:4097"),
            ("0.0.0.0:1", "http://127.0.0.1:1"),
            ("[::]:1", "http://[::1]:1"),
            ("10.0.0.1:1", "http://10.0.0.1:1"),
            ("unix:/run/relay.sock", "unix:/run/relay.sock"),
            ("https://0.0.0.0:1", "https://127.0.0.1:1"),
            ("https://0.0.0.0:1,127.0.0.1:2", "http://127.0.0.1:2"),
            ("https://0.0.0.0:1,unix:/x", "unix:/x"),
        ] {
            let environment = (!listen.is_empty()).then(|| ("OPENCODE_RELAY_LISTEN".into(), listen.into()));
            let client = Server::default().client(environment).unwrap();
            assert_eq!(client.place.to_string(), expected, "{listen}");
        }
    }

    #[test]
    fn a_wrong_url_says_what_to_write() {
        for url in ["127.0.0.1:4097", "ftp://x", "http://me:secret@host:1", "http://host:1/event"] {
            let server = Server { url: Some(url.to_owned()), ..Server::default() };
            let said = server.client([]).unwrap_err().to_string();
            assert!(said.contains("https://HOST:PORT") && !said.contains("secret"), "{said}");
        }
    }
}
