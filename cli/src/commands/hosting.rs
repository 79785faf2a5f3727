//! `lodge template …`, `lodge pool …`, `lodge user …`.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use lodge_client::{Center, QuotaChange, Upload};
use lodge_model::environment::order::TaskOutcome;
use lodge_model::environment::view::{self as model, Quota, UserOrder, UserToken};

use crate::arguments::hosting::{AddPool, ChangeQuota, Import, Pool, Template, User, WithQuota};
use crate::login::Login;
use crate::out::{Out, Progress};
use crate::view;

/// Pause between two looks at an import; the center does not hold these questions.
const LOOK: Duration = Duration::from_secs(1);

/// `lodge template …`.
pub async fn template(center: &Center, command: Template, out: &Out) -> Result<()> {
    match command {
        Template::Ls => {
            let all = center.templates().await.context("listing templates")?;
            out.show(&all, |setting| view::templates(&all, setting))
        }
        Template::Show { name } => {
            let one = center.template(&name).await.with_context(|| format!("showing template {name}"))?;
            out.show(&one, |setting| view::template_page(&one, setting))
        }
        Template::Import(asked) => import(center, &asked, out).await,
        Template::Rm { name, confirm } => {
            let one = center.template(&name).await.with_context(|| format!("looking for template {name}"))?;
            let what = format!("template {name} is removed; {} environments were made from it", one.environments);
            if !out.confirm(confirm, &what, true)? {
                return Ok(());
            }
            center.remove_template(&name).await.with_context(|| format!("removing template {name}"))?;
            out.done(&format!("template {name} is removed"))
        }
    }
}

async fn import(center: &Center, asked: &Import, out: &Out) -> Result<()> {
    let Import { name, file, .. } = asked;
    let opening = || format!("reading {}", file.display());
    let from = tokio::fs::File::open(file).await.with_context(opening)?;
    let facts = from.metadata().await.with_context(opening)?;
    if !facts.is_file() || facts.len() == 0 {
        bail!("{} is no file with an archive in it", file.display());
    }
    let mut progress = Progress::bytes(facts.len());
    progress.say(&format!("sending {}", file.display()));
    let bar = progress.bar();
    let told = move |more| {
        if let Some(bar) = &bar {
            bar.inc(more);
        }
    };
    let upload = Upload { from, size: facts.len(), progress: told };
    center.import_template(name, upload).await.with_context(|| format!("sending {} as template {name}", file.display()))?;
    drop(progress);
    if asked.no_wait {
        return out.done(&format!("template {name} is being imported; `lodge template show {name}` tells how it stands"));
    }
    let mut progress = Progress::spinner();
    loop {
        let one = center.template(name).await.with_context(|| format!("looking at template {name}"))?;
        match &one.outcome {
            TaskOutcome::Running { percent } => progress.say(&format!("importing {name}: {percent} %")),
            TaskOutcome::Failed { error } => {
                // Who has been told needs no note of it. One that cannot be removed is only that: a note.
                let _ = center.remove_template(name).await;
                bail!("importing template {name}: {error}");
            }
            TaskOutcome::Done { .. } | TaskOutcome::Checked(_) => {
                drop(progress);
                return out.show(&one, |setting| view::template_page(&one, setting));
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// `lodge pool …`.
pub async fn pool(center: &Center, command: Pool, out: &Out) -> Result<()> {
    match command {
        Pool::Ls => {
            let all = center.pools().await.context("listing pools")?;
            out.show(&all, |setting| view::pools(&all, setting))
        }
        Pool::Add(asked) => {
            let pool = pool_of(asked)?;
            center.add_pool(&pool).await.with_context(|| format!("adding pool {}", pool.name))?;
            out.done(&format!("pool {} is added", pool.name))
        }
        Pool::Rm { name } => {
            center.remove_pool(&name).await.with_context(|| format!("removing pool {name}"))?;
            out.done(&format!("pool {name} is removed"))
        }
    }
}

/// `FIRST-LAST/PREFIX`, checked as far as that is possible here.
fn pool_of(asked: AddPool) -> Result<model::Pool> {
    let wrong = || anyhow!("{:?} is no range of addresses; write it as 192.0.2.50-192.0.2.99/24", asked.range);
    let (addresses, prefix) = asked.range.split_once('/').ok_or_else(wrong)?;
    let (first, last) = addresses.split_once('-').unwrap_or((addresses, addresses));
    let read = |text: &str| text.trim().parse::<IpAddr>().map_err(|_| wrong());
    let (first, last) = (read(first)?, read(last)?);
    let prefix: u8 = prefix.parse().map_err(|_| wrong())?;
    let bits = if first.is_ipv4() { 32 } else { 128 };
    if first.is_ipv4() != last.is_ipv4() || first > last || prefix > bits {
        return Err(wrong());
    }
    Ok(model::Pool { name: asked.name, first, last, prefix, gateway: asked.gateway, dns: asked.dns })
}

/// `lodge user …`.
pub async fn user(center: &Center, command: User, login: &Login, out: &Out) -> Result<()> {
    match command {
        User::Ls => {
            let all = center.users().await.context("listing users")?;
            out.show(&all, |setting| view::users(&all, setting))
        }
        User::Show { name } => {
            let one = center.user(&name).await.with_context(|| format!("showing user {name}"))?;
            out.show(&one, |setting| view::users(std::slice::from_ref(&one), setting))
        }
        User::Add(asked) => {
            let order = UserOrder { name: asked.name.clone(), quota: quota(&asked) };
            let token = center.add_user(&order).await.with_context(|| format!("adding user {}", asked.name))?;
            show_token(&token, login, out)
        }
        User::Set(asked) => {
            center.change_quota(&asked.name, &change(&asked)).await.with_context(|| format!("changing user {}", asked.name))?;
            out.done(&format!("user {} is changed", asked.name))
        }
        User::Revoke { name, confirm } => {
            if !out.confirm(confirm, &format!("no token of user {name} counts any more"), true)? {
                return Ok(());
            }
            center.revoke_user_tokens(&name).await.with_context(|| format!("taking back the tokens of {name}"))?;
            out.done(&format!("no token of user {name} counts any more; `lodge user token {name}` makes a new one"))
        }
        User::Token { name } => {
            let token = center.mint_user_token(&name).await.with_context(|| format!("making a token for {name}"))?;
            show_token(&token, login, out)
        }
        User::Rm { name, confirm } => {
            if !out.confirm(confirm, &format!("user {name} is removed, and her tokens no longer count"), true)? {
                return Ok(());
            }
            center.remove_user(&name).await.with_context(|| format!("removing user {name}"))?;
            out.done(&format!("user {name} is removed"))
        }
    }
}

fn quota(asked: &WithQuota) -> Quota {
    Quota { environments: asked.environments, memory: asked.memory, disk: asked.disk, cpu_millis: asked.cpus }
}

/// Only what is asked for: what is absent stays.
fn change(asked: &ChangeQuota) -> QuotaChange {
    let given =
        [("environments", asked.environments), ("memory", asked.memory), ("disk", asked.disk), ("cpu-millis", asked.cpus)];
    given.into_iter().filter_map(|(name, limit)| Some((name, limit?.0))).collect()
}

fn show_token(token: &UserToken, login: &Login, out: &Out) -> Result<()> {
    let line = format!("lodge login {} --ca {} --token {}", login.url, login.ca, token.token);
    out.show(token, |_| view::user_token(token, &line))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::{Arguments, Command};
    use clap::Parser as _;

    #[test]
    fn only_the_limits_that_are_named_are_changed() {
        let change = |line: &str| match Arguments::try_parse_from(line.split(' ')).unwrap().command {
            Command::User(User::Set(asked)) => serde_json::to_value(change(&asked)).unwrap(),
            other => panic!("{other:?}"),
        };
        let asked = change("lodge user set ann --memory 4G --disk none --cpus 0.5");
        assert_eq!(asked, serde_json::json!({ "memory": 4_u64 << 30, "disk": null, "cpu-millis": 500 }));
        assert!(Arguments::try_parse_from(["lodge", "user", "set", "ann"]).is_err());
    }

    #[test]
    fn a_range_of_addresses_is_read_and_a_wrong_one_is_told() {
        let read = |range: &str| pool_of(AddPool { name: "p".into(), range: range.into(), gateway: None, dns: Vec::new() });
        let pool = read("192.0.2.50-192.0.2.99/24").unwrap();
        assert_eq!(
            (pool.first.to_string(), pool.last.to_string(), pool.prefix),
            ("192.0.2.50".into(), "192.0.2.99".into(), 24)
        );
        assert_eq!(read("2001:db8::10-2001:db8::ff/64").unwrap().prefix, 64);
        assert_eq!(read("192.0.2.7/24").unwrap().last.to_string(), "192.0.2.7");
        for range in ["", "192.0.2.50", "192.0.2.99-192.0.2.50/24", "192.0.2.1-::2/24", "192.0.2.1-192.0.2.9/33", "a-b/24"] {
            assert!(read(range).unwrap_err().to_string().contains("range of addresses"), "{range}");
        }
    }
}
