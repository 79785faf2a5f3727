//! Which center, and how we prove ourselves: stored by `lodge login`, overridden by the environment.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use lodge_client::{Auth, Center};
use lodge_model::ids::Fingerprint;
use serde::{Deserialize, Serialize};

const NOT_LOGGED_IN: &str = "you are not logged in: run `lodge login https://ADDRESS:8443 --ca sha256:… --token …`; \
                             a new center prints the whole line on its console at its first start";

/// A center and a token.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// `https://ADDRESS:PORT`.
    pub url: String,
    /// Fingerprint of its CA.
    pub ca: Fingerprint,
    /// The operator's token.
    pub token: String,
}

impl Login {
    /// The stored one, with what the environment says in its place.
    pub fn find(environment: impl Fn(&str) -> Option<OsString>) -> Result<Self> {
        let stored = Self::read(&config_file(&environment)?)?;
        let text = |key: &str| match environment(key).filter(|value| !value.is_empty()) {
            Some(value) => value.into_string().map(Some).map_err(|_| anyhow!("{key} is not UTF-8")),
            None => Ok(None),
        };
        let (url, ca, token) = (text("LODGE_URL")?, text("LODGE_CA")?, text("LODGE_TOKEN")?);
        let ca = ca.map(|ca| ca.parse().context("reading LODGE_CA")).transpose()?;
        let stored = stored.as_ref();
        Ok(Self {
            url: url.or_else(|| stored.map(|login| login.url.clone())).ok_or_else(|| anyhow!(NOT_LOGGED_IN))?,
            ca: ca.or_else(|| stored.map(|login| login.ca.clone())).ok_or_else(|| anyhow!(NOT_LOGGED_IN))?,
            token: token.or_else(|| stored.map(|login| login.token.clone())).ok_or_else(|| anyhow!(NOT_LOGGED_IN))?,
        })
    }

    /// The way to the center.
    pub fn center(&self) -> Result<Center> {
        Center::new(&self.url, &self.ca, Auth::Token(self.token.clone()))
    }

    /// Store it for the next time, readable by nobody else: temporary file, sync, rename.
    pub fn store(&self, path: &Path) -> Result<()> {
        let text = toml::to_string(self).context("encoding the login")?;
        let write = || -> Result<()> {
            let dir = path.parent().ok_or_else(|| anyhow!("it has no directory"))?;
            fs::create_dir_all(dir)?;
            let temporary = path.with_extension("toml.new");
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
            file.set_permissions(fs::Permissions::from_mode(0o600))?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&temporary, path)?;
            File::open(dir)?.sync_all()?;
            Ok(())
        };
        write().with_context(|| format!("writing {}", path.display()))
    }

    fn read(path: &Path) -> Result<Option<Self>> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
        };
        let login = toml::from_str(&text).with_context(|| format!("reading {}; `lodge login` writes it anew", path.display()));
        login.map(Some)
    }
}

/// Where it is stored (XDG Base Directory Specification).
pub fn config_file(environment: &impl Fn(&str) -> Option<OsString>) -> Result<PathBuf> {
    let absolute = |key: &str| environment(key).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_CONFIG_HOME").or_else(|| absolute("HOME").map(|home| home.join(".config")));
    let base = base.ok_or_else(|| anyhow!("neither XDG_CONFIG_HOME nor HOME is set, so there is no place for a login"))?;
    Ok(base.join("lodge/config.toml"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login() -> Login {
        Login { url: "https://10.0.0.1:8443".into(), ca: Fingerprint::from_digest([1; 32]), token: "t0k".into() }
    }

    fn environment(home: &Path, extra: &[(&str, &str)]) -> impl Fn(&str) -> Option<OsString> {
        let mut values: Vec<(String, OsString)> = vec![("XDG_CONFIG_HOME".into(), home.into())];
        values.extend(extra.iter().map(|(key, value)| ((*key).to_owned(), (*value).into())));
        move |key| values.iter().find(|(name, _)| name == key).map(|(_, value)| value.clone())
    }

    #[test]
    fn a_login_is_stored_privately_and_found_again() {
        let home = tempfile::tempdir().unwrap();
        let environment = environment(home.path(), &[]);
        let path = config_file(&environment).unwrap();
        login().store(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(Login::find(environment).unwrap() == login());
    }

    #[test]
    fn the_environment_takes_its_place_field_by_field() {
        let home = tempfile::tempdir().unwrap();
        login().store(&home.path().join("lodge/config.toml")).unwrap();
        let found = Login::find(environment(home.path(), &[("LODGE_URL", "https://other:1"), ("LODGE_TOKEN", "")])).unwrap();
        assert_eq!((found.url.as_str(), found.token.as_str()), ("https://other:1", "t0k"));
    }

    #[test]
    fn who_is_not_logged_in_is_told_how_and_a_broken_file_is_named() {
        let home = tempfile::tempdir().unwrap();
        let error = Login::find(environment(home.path(), &[("LODGE_URL", "https://x")])).err().unwrap();
        assert!(error.to_string().contains("lodge login https://"), "{error}");
        let error = Login::find(environment(home.path(), &[("LODGE_CA", "md5:1")])).err().unwrap();
        assert!(format!("{error:#}").contains("LODGE_CA"), "{error:#}");
        fs::create_dir_all(home.path().join("lodge")).unwrap();
        fs::write(home.path().join("lodge/config.toml"), "url = 1").unwrap();
        let error = Login::find(environment(home.path(), &[])).err().unwrap();
        assert!(format!("{error:#}").contains("config.toml"), "{error:#}");
    }
}
