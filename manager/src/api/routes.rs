//! Every address that the service answers at, with what it takes to be let in: a route without an action cannot be written.

use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::http::Method;
use axum::middleware;
use axum::routing::{self, MethodRouter};

use super::{
    access, account, audit, console, desktops, health, openapi, openings, operations, session, shares, snapshots,
    trash, usage, users,
};
use crate::auth::authorize::Action;
use crate::service::Service;
use crate::{edge, web};

/// One method of one address.
pub struct Route {
    /// What it is called in the description of the API and in the audit log.
    pub operation: &'static str,
    /// `GET` …
    pub method: Method,
    /// With the names of its variable parts in braces: `{desktop}`, `{user}`, `{group}`, `{session}`, `{token}` and `{share}` are looked up before the handler runs.
    pub path: &'static str,
    /// What a caller must be allowed to do with that.
    pub action: Action,
    /// What it is for, in a few words.
    pub summary: &'static str,
    handler: MethodRouter<Arc<Service>>,
}

impl Route {
    pub(crate) fn get<H, T>(
        operation: &'static str,
        path: &'static str,
        action: Action,
        summary: &'static str,
        handler: H,
    ) -> Self
    where
        H: Handler<T, Arc<Service>>,
        T: 'static,
    {
        Self { operation, method: Method::GET, path, action, summary, handler: routing::get(handler) }
    }

    pub(crate) fn post<H, T>(
        operation: &'static str,
        path: &'static str,
        action: Action,
        summary: &'static str,
        handler: H,
    ) -> Self
    where
        H: Handler<T, Arc<Service>>,
        T: 'static,
    {
        Self { operation, method: Method::POST, path, action, summary, handler: routing::post(handler) }
    }

    pub(crate) fn put<H, T>(
        operation: &'static str,
        path: &'static str,
        action: Action,
        summary: &'static str,
        handler: H,
    ) -> Self
    where
        H: Handler<T, Arc<Service>>,
        T: 'static,
    {
        Self { operation, method: Method::PUT, path, action, summary, handler: routing::put(handler) }
    }

    pub(crate) fn patch<H, T>(
        operation: &'static str,
        path: &'static str,
        action: Action,
        summary: &'static str,
        handler: H,
    ) -> Self
    where
        H: Handler<T, Arc<Service>>,
        T: 'static,
    {
        Self { operation, method: Method::PATCH, path, action, summary, handler: routing::patch(handler) }
    }

    pub(crate) fn delete<H, T>(
        operation: &'static str,
        path: &'static str,
        action: Action,
        summary: &'static str,
        handler: H,
    ) -> Self
    where
        H: Handler<T, Arc<Service>>,
        T: 'static,
    {
        Self { operation, method: Method::DELETE, path, action, summary, handler: routing::delete(handler) }
    }
}

/// A router of these routes, each behind [`access::permit`].
pub(crate) fn router(service: &Arc<Service>, routes: Vec<Route>) -> Router<Arc<Service>> {
    routes.into_iter().fold(Router::new(), |router, route| {
        let gate = access::Gate { service: service.clone(), action: route.action, operation: route.operation };
        let permit = middleware::from_fn_with_state(gate, access::permit);
        router.route(route.path, route.handler.route_layer(permit))
    })
}

/// All of them.
pub fn all() -> Vec<Route> {
    let mut all = api();
    all.extend(web::routes());
    all
}

/// Those for programs.
#[rustfmt::skip]
pub fn api() -> Vec<Route> {
    use Action as A;
    vec![
        Route::get("health", "/v1/health", A::Look, "Whether the service is well", health::health),
        Route::get("health.live", "/health/live", A::Look, "The process answers", health::live),
        Route::get("health.ready", "/health/ready", A::Look, "It can do its work; 503 if not", health::ready),
        Route::get("metrics", "/metrics", A::Count, "What there is to count, for Prometheus", health::metrics),
        Route::get("openapi", "/v1/openapi.json", A::Look, "This description", openapi::serve),
        Route::post("login", "/v1/session", A::Enter, "Log in: a cookie, and the user", session::login),
        Route::get("session.show", "/v1/session", A::Own, "Who is logged in", session::show),
        Route::delete("logout", "/v1/session", A::Own, "Log out", session::logout),
        Route::post("password.change", "/v1/session/password", A::Own, "Change the own password", session::change_password),

        Route::post("factor.begin", "/v1/session/factor", A::ChangeOwn, "Begin to use an authenticator: its key", account::begin_factor),
        Route::post("factor.confirm", "/v1/session/factor/confirm", A::ChangeOwn, "Use it from now on: recovery codes", account::confirm_factor),
        Route::post("factor.remove", "/v1/session/factor/remove", A::ChangeOwn, "Use it no longer", account::remove_own_factor),
        Route::get("session.list", "/v1/sessions", A::SeeOwn, "Where the caller is logged in, or `?user=`", account::sessions),
        Route::delete("session.remove", "/v1/sessions/{session}", A::ChangeOwn, "End a session and what is open by it", account::end_session),
        Route::get("token.list", "/v1/tokens", A::SeeOwn, "The caller's API tokens, or those of `?user=`", account::tokens),
        Route::post("token.add", "/v1/tokens", A::ChangeOwn, "Make an API token", account::add_token),
        Route::delete("token.remove", "/v1/tokens/{token}", A::ChangeOwn, "End a token and what is open by it", account::end_token),
        Route::get("token.self", "/v1/token", A::OwnToken, "The token that asks", account::own_token),
        Route::delete("token.end", "/v1/token", A::OwnToken, "End the token that asks", account::end_own_token),
        Route::post("link.use", "/v1/links", A::Enter, "Choose a password with a link", account::use_link),

        Route::get("user.list", "/v1/users", A::SeeUsers, "All users", users::list),
        Route::post("user.add", "/v1/users", A::ChangeUsers, "Add a user, with a one-time password", users::add),
        Route::get("user.show", "/v1/users/{user}", A::SeeUsers, "One user", users::show),
        Route::patch("user.change", "/v1/users/{user}", A::ChangeUsers, "Change a user's role, or disable them", users::change),
        Route::delete("user.remove", "/v1/users/{user}", A::ChangeUsers, "Delete a user who owns no desktop", users::remove),
        Route::post("user.password", "/v1/users/{user}/password", A::ChangeUsers, "A new one-time password", users::reset_password),
        Route::post("user.link", "/v1/users/{user}/link", A::ChangeUsers, "A link with which the user chooses a password", account::link),
        Route::delete("user.factor.remove", "/v1/users/{user}/factor", A::ChangeUsers, "Let a user log in without the authenticator that they lost", account::remove_factor),
        Route::post("user.invite", "/v1/invitations", A::ChangeUsers, "Add a user who chooses a password with a link", account::invite),
        Route::get("group.list", "/v1/groups", A::SeeUsers, "All groups", users::groups),
        Route::post("group.add", "/v1/groups", A::ChangeUsers, "Add a group", users::add_group),
        Route::patch("group.change", "/v1/groups/{group}", A::ChangeUsers, "Change how much its members\' desktops may have together", users::change_group),
        Route::delete("group.remove", "/v1/groups/{group}", A::ChangeUsers, "Delete a group; its members stay", users::remove_group),
        Route::put("group.join", "/v1/groups/{group}/members/{member}", A::ChangeUsers, "Put a user into a group", users::add_member),
        Route::delete("group.leave", "/v1/groups/{group}/members/{member}", A::ChangeUsers, "Take a user out of a group", users::remove_member),

        Route::get("operation.list", "/v1/operations", A::List, "Work that takes a while, newest first", operations::list),
        Route::get("operation.show", "/v1/operations/{operation}", A::SeeDesktop, "How far it is; `?wait=30` waits for its end", operations::show),
        Route::post("operation.cancel", "/v1/operations/{operation}/cancel", A::Change, "Cancel it, if it has not begun", operations::cancel),
        Route::get("event.list", "/v1/events", A::List, "What happens, as server-sent events; `Last-Event-ID` or `?cursor=` goes on", operations::events),
        Route::get("audit.list", "/v1/audit", A::Audit, "The audit log, newest first", audit::list),
        Route::get("audit.export", "/v1/audit/export", A::Audit, "The audit log, oldest first, as lines of JSON or `?format=csv`", audit::export),
        Route::get("usage.list", "/v1/usage", A::List, "What desktops used: `?by=hour`, `desktop` or `user`, `?format=csv`", usage::list),
        Route::get("image.list", "/v1/images", A::See, "All images", super::images),
        Route::post("image.warm", "/v1/images/{image}/warm", A::Rule, "Boot an image once, so that its desktops need not", super::warm),

        Route::get("desktop.list", "/v1/desktops", A::List, "The desktops that the caller sees", desktops::list),
        Route::post("desktop.add", "/v1/desktops", A::Make, "Make a desktop", desktops::create),
        Route::get("desktop.show", "/v1/desktops/{desktop}", A::SeeDesktop, "One desktop, by name or id", desktops::show),
        Route::patch("desktop.change", "/v1/desktops/{desktop}", A::Change, "Rename it, or change a stopped one\'s size, if it is as `If-Match` says", desktops::change),
        Route::delete("desktop.remove", "/v1/desktops/{desktop}", A::Change, "Delete a desktop; it can be recovered for a while, unless `?purge=true`", desktops::remove),
        Route::get("trash.list", "/v1/trash", A::List, "Deleted desktops that can be recovered, newest first", trash::list),
        Route::post("trash.recover", "/v1/trash/{trashed}/recover", A::Change, "Take a deleted desktop back, by id or name", trash::recover),
        Route::delete("trash.remove", "/v1/trash/{trashed}", A::Change, "Remove a deleted desktop with everything in it", trash::remove),
        Route::post("desktop.start", "/v1/desktops/{desktop}/start", A::Change, "Start or wake it; `?cold=true` forgets a suspended one's memory", desktops::start),
        Route::post("desktop.stop", "/v1/desktops/{desktop}/stop", A::Change, "Ask the guest to shut down, or end the machine", desktops::stop),
        Route::post("desktop.restart", "/v1/desktops/{desktop}/restart", A::Change, "Stop, then start", desktops::restart),
        Route::post("desktop.suspend", "/v1/desktops/{desktop}/suspend", A::Change, "Put it to sleep", snapshots::suspend),
        Route::post("desktop.resume", "/v1/desktops/{desktop}/resume", A::Change, "Wake it", snapshots::resume),
        Route::post("desktop.undo", "/v1/desktops/{desktop}/undo", A::Change, "Go back to the newest restore point", snapshots::undo),
        Route::post("desktop.fork", "/v1/desktops/{desktop}/fork", A::Change, "Make new desktops that go on where it is, or was", snapshots::fork),
        Route::get("snapshot.list", "/v1/snapshots", A::List, "The snapshots of all desktops that the caller sees", snapshots::list_all),
        Route::get("desktop.snapshot.list", "/v1/desktops/{desktop}/snapshots", A::SeeDesktop, "Its snapshots, newest first", snapshots::list),
        Route::post("desktop.snapshot.take", "/v1/desktops/{desktop}/snapshots", A::Change, "Take a snapshot", snapshots::create),
        Route::delete("desktop.snapshot.remove", "/v1/desktops/{desktop}/snapshots/{snapshot}", A::Change, "Remove a snapshot, by name, id or the beginning of that", snapshots::remove),
        Route::post("desktop.snapshot.restore", "/v1/desktops/{desktop}/snapshots/{snapshot}/restore", A::Change, "Go back to a snapshot", snapshots::restore),
        Route::get("desktop.snapshot.screen", "/v1/desktops/{desktop}/snapshots/{snapshot}/screen", A::Watch, "What the screen showed then, as PNG", snapshots::screen),
        Route::get("desktop.screenshot", "/v1/desktops/{desktop}/screenshot", A::Watch, "What the screen shows, as PNG", desktops::screenshot),
        Route::get("desktop.thumbnail", "/v1/desktops/{desktop}/thumbnail", A::Watch, "The same in a few KiB, or of a sleeping one what it showed last", desktops::thumbnail),
        Route::get("desktop.logs", "/v1/desktops/{desktop}/logs", A::Watch, "Bytes of a log from `offset` on; `yunju-next-offset` says where they end", desktops::logs),
        Route::get("desktop.console", "/v1/desktops/{desktop}/console", A::Watch, "Upgrade to `yunju-console`: the serial port's bytes, both ways", console::attach),
        Route::get("desktop.watch", "/desktops/{desktop}/ws", A::Watch, "Websocket: RFB", edge::websocket),
        Route::get("desktop.listen", "/desktops/{desktop}/ws/audio", A::Watch, "Websocket: sound", edge::audio),
        Route::post("desktop.open", "/v1/desktops/{desktop}/open", A::Open, "Get the way to its own host name", openings::open),
        Route::get("desktop.viewer.list", "/v1/desktops/{desktop}/viewers", A::Share, "Who looks at it now", shares::viewers),
        Route::get("desktop.share.list", "/v1/desktops/{desktop}/shares", A::Share, "With whom it is shared", shares::list),
        Route::post("desktop.share.add", "/v1/desktops/{desktop}/shares", A::Share, "Share it by a link, or with a user", shares::add),
        Route::get("share.list", "/v1/shares", A::List, "What others share with the caller", shares::list_own),
        Route::delete("share.remove", "/v1/shares/{share}", A::Share, "End a share and what is open by it", shares::remove),
        Route::post("share.open", "/v1/shares/open", A::Enter, "What a link leads to, and the way in", shares::open),
        Route::post("share.copy", "/v1/shares/copy", A::Make, "Make a desktop that goes on from one that is shared as a copy", shares::copy),
        Route::post("opening.enter", "/v1/opening", A::Enter, "On a desktop's own host name: exchange a ticket for a cookie", openings::enter),
        Route::get("opening.show", "/v1/opening", A::SeeDesktop, "On a desktop's own host name: what its page may", openings::show),
        Route::get("desktop.io", "/desktops/{desktop}/ws/io", A::Watch, "Websocket: what a browser and the guest tell each other beside RFB", edge::io),
    ]
}
