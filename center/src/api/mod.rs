//! The HTTPS API: handlers that translate between HTTP and the flows, and decide nothing.

mod bmc;
mod body;
mod drain;
mod environments;
mod failover;
mod machines;
mod node;
mod openapi;
mod operator;
mod pools;
mod repair;
mod rolling;
mod sessions;
mod snapshots;
mod templates;
mod users;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::center::Center;
use crate::fault::Fault;

/// Below this path are all but `/openapi.json` and `/healthz`.
pub const PREFIX: &str = "/api/v1";
/// Longest body that is read, in bytes.
const BODY_MAX: usize = 4 << 20;

/// All routes, and the document that is made from them.
pub fn routes(center: Arc<Center>) -> Router {
    let documented = OpenApiRouter::with_openapi(openapi::base()).nest(PREFIX, versioned()).routes(routes!(openapi::healthz));
    let (router, document) = documented.split_for_parts();
    router
        .merge(openapi::routes(document))
        .fallback(|| async { Fault::not_found("there is nothing at this path; /openapi.json lists all there is") })
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(center)
}

fn versioned() -> OpenApiRouter<Arc<Center>> {
    OpenApiRouter::new()
        .routes(routes!(machines::facts))
        .routes(routes!(machines::decision))
        .routes(routes!(machines::events))
        .routes(routes!(machines::console))
        .routes(routes!(machines::enrol))
        .routes(routes!(operator::approve))
        .routes(routes!(node::register))
        .routes(routes!(node::heartbeat))
        .routes(routes!(node::console))
        .routes(routes!(node::off))
        .routes(routes!(operator::nodes))
        .routes(routes!(operator::node, operator::forget))
        .routes(routes!(operator::console))
        .routes(routes!(operator::reinstall))
        .routes(routes!(operator::events))
        .routes(routes!(operator::tickets))
        .routes(routes!(operator::mint_token))
        .routes(routes!(operator::cluster))
        .routes(routes!(operator::label))
        .routes(routes!(operator::confirm_off))
        .routes(routes!(bmc::set, bmc::show, bmc::remove))
        .routes(routes!(bmc::test))
        .routes(routes!(drain::order, drain::show, drain::undrain))
        .routes(routes!(drain::certificate))
        .routes(routes!(drain::move_one))
        .routes(routes!(drain::settings, drain::set))
        .routes(routes!(drain::leaving))
        .routes(routes!(rolling::order, rolling::show, rolling::cancel))
        .routes(routes!(rolling::go_on))
        .routes(routes!(drain::certify))
        .routes(routes!(failover::incidents))
        .routes(routes!(failover::incident))
        .routes(routes!(failover::state))
        .routes(routes!(failover::disarm))
        .routes(routes!(failover::arm))
        .routes(routes!(failover::capacity))
        .routes(routes!(failover::fencing))
        .routes(routes!(pools::list, pools::add))
        .routes(routes!(pools::remove))
        .routes(routes!(environments::list, environments::create))
        .routes(routes!(environments::show, environments::change, environments::destroy))
        .routes(routes!(environments::start))
        .routes(routes!(environments::stop))
        .routes(routes!(environments::restart))
        .routes(routes!(environments::kill))
        .routes(routes!(snapshots::list, snapshots::take))
        .routes(routes!(snapshots::remove))
        .routes(routes!(snapshots::rollback))
        .routes(routes!(snapshots::clone))
        .routes(routes!(repair::begin))
        .routes(routes!(repair::finish))
        .routes(routes!(repair::fsck))
        .routes(routes!(repair::reinstall))
        .routes(routes!(users::list, users::add))
        .routes(routes!(users::show, users::change, users::remove))
        .routes(routes!(users::add_token, users::revoke))
        .routes(routes!(templates::list))
        .routes(routes!(templates::show, templates::import, templates::remove))
        .routes(routes!(templates::upload))
        .routes(routes!(sessions::exec))
        .routes(routes!(sessions::console))
        .routes(routes!(sessions::logs))
        .routes(routes!(sessions::join))
}
