//! Settings that are read again while the relay runs: what may change at once, and what waits for the next restart.

use super::layers::{self, Layers};
use super::{Config, Credentials, Input, Mistakes, keys, resolve};

/// What was written when the relay started, kept to be compared with what is written now.
#[derive(Debug)]
pub struct Settings {
    input: Input,
    written: Layers,
    credentials: Option<Credentials>,
    log_level: String,
}

/// What reading again brought.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Again {
    /// A new level for the relay's own log, to be used at once.
    pub log_level: Option<String>,
    /// What is written now and takes effect at the next restart; for people.
    pub later: Vec<String>,
}

impl Settings {
    /// As [`load`](super::load); flags and environment stay what they are at this time.
    ///
    /// # Errors
    ///
    /// All mistakes that were made.
    pub fn load(input: Input) -> Result<(Config, Self), Mistakes> {
        let (config, written) = read(&input)?;
        let settings =
            Self { input, written, credentials: config.credentials.clone(), log_level: config.log_level.clone() };
        Ok((config, settings))
    }

    /// Whether there is anything that can be read again: a file, or another file named by a setting.
    #[must_use]
    pub fn has_files(&self) -> bool {
        layers::file(&self.input).is_some() || self.written.contains_key("password_file")
    }

    /// Reads the file again. What takes effect later is compared with what the relay was started with, so it is told each
    /// time until it does.
    ///
    /// # Errors
    ///
    /// All mistakes that are in it now; nothing changes then.
    pub fn read_again(&mut self) -> Result<Again, Mistakes> {
        let (config, written) = read(&self.input)?;
        let mut again = Again::default();
        for key in keys::KEYS.into_iter().filter(|key| *key != "log_level") {
            let values = |layers: &Layers| layers.get(key).map(|given| given.values.clone());
            match (values(&self.written), values(&written)) {
                (before, now) if before == now => {}
                (_, Some(now)) => again.later.push(format!("{key} changed to {:?}", now.join(", "))),
                (_, None) => again.later.push(format!("{key} was taken out")),
            }
        }
        let is_same_file = !again.later.iter().any(|later| later.starts_with("password_file "));
        if is_same_file
            && config.credentials.map(|now| now.password) != self.credentials.clone().map(|was| was.password)
        {
            // Never what it is.
            again.later.push("the password in password_file changed".to_owned());
        }
        if config.log_level != self.log_level {
            self.log_level.clone_from(&config.log_level);
            again.log_level = Some(config.log_level);
        }
        Ok(again)
    }
}

pub(super) fn read(input: &Input) -> Result<(Config, Layers), Mistakes> {
    let mut mistakes = Mistakes::default();
    let layers = layers::collect(input, &mut mistakes);
    match resolve::resolve(&layers, input, &mut mistakes) {
        Some(config) if mistakes.is_empty() => Ok((config, layers)),
        _ => Err(mistakes),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn says_what_changed_and_when_it_takes_effect() {
        let folder = tempfile::tempdir().unwrap();
        let [file, password] = ["relay.toml", "password"].map(|name| folder.path().join(name));
        let write = |text: &str| fs::write(&file, text).unwrap();
        let secret = format!("password_file = {password:?}\n");
        fs::write(&password, "first-secret").unwrap();
        write(&format!("{secret}grace = \"1s\"\nlog_level = \"info\"\nlisten = [\"[::1]:1\"]"));
        let input = Input {
            flags: vec![("grace", vec!["3s".to_owned()]), ("journal", vec!["memory".to_owned()])],
            file: Some(file.clone()),
            command: vec!["opencode".to_owned(), "serve".to_owned()],
            ..Input::default()
        };
        let (_, mut settings) = Settings::load(input).unwrap();
        assert!(settings.has_files());
        assert_eq!(settings.read_again(), Ok(Again::default()));

        // The flag wins as before, so the file's value changes nothing.
        write(&format!("{secret}grace = \"2s\"\nlog_level = \"debug\"\njournal_age = \"1h\""));
        fs::write(&password, "second-secret").unwrap();
        let later = ["listen was taken out", "journal_age changed to \"1h\"", "the password in password_file changed"];
        let mut expected = Again { log_level: Some("debug".to_owned()), later: later.map(str::to_owned).to_vec() };
        assert_eq!(settings.read_again(), Ok(expected));
        expected = Again { log_level: None, later: later.map(str::to_owned).to_vec() };
        assert_eq!(settings.read_again(), Ok(expected));

        write("grace = 1\nlisten = \"x\"\nlog_level = \"a=b=c\"");
        let mistakes = settings.read_again().unwrap_err();
        // The flag covers the file's grace.
        assert_eq!(mistakes.0.iter().map(|mistake| &*mistake.key).collect::<Vec<_>>(), ["listen", "log_level"]);

        write(&format!("{secret}log_level = \"info\"\nlisten = \"[::1]:1\""));
        fs::write(&password, "first-secret").unwrap();
        assert_eq!(settings.read_again(), Ok(Again { log_level: Some("info".to_owned()), later: Vec::new() }));
    }
}
