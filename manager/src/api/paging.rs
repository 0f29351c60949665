//! Long lists in pages: `?limit=` and `?cursor=`, and a `Link` to the next page (RFC 8288) while there is one. A page may be
//! shorter than asked for; the end is where there is no link.

use axum::http::{HeaderValue, Uri, header};
use axum::response::{IntoResponse, Response};

use super::problem::Refusal;

/// A page has at most so many entries, and so many unless somebody asks for fewer.
pub const MOST: u32 = 1000;

/// How many entries a page has.
pub fn limit(asked: Option<u32>) -> Result<u32, Refusal> {
    match asked {
        None => Ok(MOST),
        Some(limit @ 1..=MOST) => Ok(limit),
        Some(_) => Err(Refusal::invalid(format!("a page has 1 to {MOST} entries"))),
    }
}

/// A page, with the way to the next one.
pub fn page(uri: &Uri, next: Option<&str>, page: impl IntoResponse) -> Response {
    let mut response = page.into_response();
    if let Some(next) = next {
        let kept =
            uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("cursor="));
        let query = kept.chain([format!("cursor={next}").as_str()]).collect::<Vec<_>>().join("&");
        let link = format!("<{}?{query}>; rel=\"next\"", uri.path());
        if let Ok(link) = HeaderValue::try_from(link) {
            response.headers_mut().insert(header::LINK, link);
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_link_keeps_what_was_asked_for_and_moves_the_cursor() {
        let uri: Uri = "/v1/audit?actor=a&cursor=9&limit=2".parse().unwrap();
        let response = page(&uri, Some("7"), "");
        assert_eq!(response.headers()["link"], "</v1/audit?actor=a&limit=2&cursor=7>; rel=\"next\"");
        assert!(page(&uri, None, "").headers().get("link").is_none());
        assert!(limit(Some(0)).is_err() && limit(Some(1001)).is_err() && limit(Some(1)).is_ok());
    }
}
