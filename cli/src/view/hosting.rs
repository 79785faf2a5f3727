//! Templates, address pools and users, for people.

use lodge_model::environment::view::{PoolView, TemplateView, UserToken, UserView};

use super::environment::outcome;
use super::{Setting, pairs, plain, table, time};
use crate::amount::{cpus, size};

/// `lodge template ls`.
pub fn templates(templates: &[TemplateView], setting: &Setting) -> String {
    if templates.is_empty() {
        return "no template yet: `lodge template import NAME FILE` makes one\n".into();
    }
    let header = ["NAME", "DIGEST", "SIZE", "USED BY", "CREATED", "STATE", ""];
    let rows = templates.iter().map(|template| {
        [
            template.name.clone(),
            template.digest.as_ref().map_or_else(|| "-".into(), |digest| digest.hex().chars().take(12).collect()),
            size(template.size),
            template.environments.to_string(),
            time(template.created, setting),
            outcome(&template.outcome),
            template.meta.description.clone(),
        ]
    });
    table(header, rows, setting)
}

/// `lodge template show`.
pub fn template_page(template: &TemplateView, setting: &Setting) -> String {
    let meta = &template.meta;
    let rows = vec![
        ("name", template.name.clone()),
        ("state", outcome(&template.outcome)),
        ("description", meta.description.clone()),
        ("digest", template.digest.as_ref().map_or_else(|| "-".into(), ToString::to_string)),
        ("size", size(template.size)),
        ("init", meta.init.join(" ")),
        ("stops by", format!("signal {}, within {} s", meta.stop_signal, meta.stop_seconds)),
        ("movable", if meta.movable { "yes, while it runs" } else { "by stop and start" }.into()),
        ("environments", template.environments.to_string()),
        ("created", time(template.created, setting)),
    ];
    pairs("", &rows)
}

/// `lodge pool ls`.
pub fn pools(pools: &[PoolView], setting: &Setting) -> String {
    if pools.is_empty() {
        return "no pool yet: `lodge pool add NAME FIRST-LAST/PREFIX` makes one\n".into();
    }
    let rows = pools.iter().map(|view| {
        let dns: Vec<String> = view.pool.dns.iter().map(ToString::to_string).collect();
        [
            view.pool.name.clone(),
            format!("{}-{}/{}", view.pool.first, view.pool.last, view.pool.prefix),
            view.pool.gateway.map_or_else(|| "-".into(), |gateway| gateway.to_string()),
            if dns.is_empty() { "-".into() } else { dns.join(",") },
            format!("{} of {}", view.used, view.size),
        ]
    });
    table(["NAME", "ADDRESSES", "GATEWAY", "NAME SERVERS", "IN USE"], rows, setting)
}

/// `lodge user ls`.
pub fn users(users: &[UserView], setting: &Setting) -> String {
    if users.is_empty() {
        return "no user yet: `lodge user add NAME` makes one\n".into();
    }
    let rows = users.iter().map(|user| {
        let (has, may) = (&user.used, &user.quota);
        [
            user.name.clone(),
            of(has.environments.map(|number| number.to_string()), may.environments.map(|number| number.to_string())),
            of(has.memory.map(size), may.memory.map(size)),
            of(has.disk.map(size), may.disk.map(size)),
            of(has.cpu_millis.map(cpus), may.cpu_millis.map(cpus)),
        ]
    });
    table(["NAME", "ENVIRONMENTS", "MEMORY", "DISK", "CPUS"], rows, setting)
}

/// `lodge user add` and `lodge user token`.
pub fn user_token(token: &UserToken, login: &str) -> String {
    format!(
        "{}\n\nThe token of {}; it is not shown again. To log in with it:\n  {}\n",
        plain(&token.token),
        plain(&token.user.name),
        plain(login)
    )
}

fn of(has: Option<String>, may: Option<String>) -> String {
    let has = has.unwrap_or_else(|| "0".into());
    may.map_or_else(|| has.clone(), |may| format!("{has} of {may}"))
}
