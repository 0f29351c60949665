//! HTTPS, from both sides.

#![allow(clippy::unwrap_used)] // test support functions panic to fail

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::sync::Arc;

use common::{Said, Service, said, service, until};
use rustls::crypto::ring;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

/// Somebody's shell on another machine.
fn elsewhere(service: &Service, arguments: &[&str], input: &str) -> Said {
    let mut command = service.command(arguments);
    command.env_remove("YUNJU_DATA").env("XDG_CONFIG_HOME", service.path("config")).env("HOME", service.path("home"));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes()); // it may not want to know
    said(child.wait_with_output().unwrap())
}

/// The answer's text to a request by HTTPS, if the server has the key of the certificate in `pem`.
fn https(service: &Service, pem: &str, request: &str) -> Option<String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_root_certificates(roots).with_no_client_auth());
    let connection = ClientConnection::new(config, "localhost".try_into().unwrap()).unwrap();
    let mut stream = StreamOwned::new(connection, TcpStream::connect(&service.address).unwrap());
    stream.write_all(request.as_bytes()).ok()?;
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text); // it may be cut off
    Some(String::from_utf8_lossy(&text).into_owned())
}

const HEALTH: &str = "GET /v1/health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

fn plain(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

/// A certificate for localhost and its key, in files that `serve` reads.
fn certificate(service: &Service) -> String {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(service.path("cert.pem"), made.cert.pem()).unwrap();
    fs::write(service.path("key.pem"), made.signing_key.serialize_pem()).unwrap();
    made.cert.pem()
}

#[test]
fn a_certificate_that_nobody_vouches_for_is_refused_until_somebody_says_that_it_is_the_right_one() {
    let mut service = service();
    service.serve(&["--tls", "self-signed"]);
    let password = service.ok(&["user", "add", "alice"]);
    assert_eq!(service.ok(&["ls", "-o", "name"]), "", "the local socket has no need of it");
    let url = format!("https://{}", service.address);
    let refused = elsewhere(&service, &["login", &url, "--user", "alice"], &password);
    assert_eq!(refused.code, 3, "{refused:?}");
    assert!(refused.err.contains("not trusted") && refused.err.contains("--fingerprint"), "{refused:?}");
    let log = service.log();
    let fingerprint: String = log.split("fingerprint=").nth(1).unwrap().chars().take(64).collect();
    assert!(refused.err.contains(&fingerprint), "{refused:?}");
    // with the right one the service itself answers: the password must be changed first
    let asked = elsewhere(&service, &["login", &url, "--user", "alice", "--fingerprint", &fingerprint], &password);
    assert!(asked.err.contains("yet to choose a password"), "{asked:?}");
    let other = "0".repeat(64);
    let wrong = elsewhere(&service, &["login", &url, "--user", "alice", "--fingerprint", &other], &password);
    assert_eq!(wrong.code, 3, "{wrong:?}");
    assert_eq!(elsewhere(&service, &["login", &url, "--fingerprint", "nonsense"], "").code, 1);

    let pem = fs::read_to_string(service.path("data/tls/cert.pem")).unwrap();
    let answer = https(&service, &pem, HEALTH).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(
        !answer.to_lowercase().contains("strict-transport-security"),
        "nobody could get around a new one: {answer}"
    );
    let body = serde_json::json!({"name": "alice", "password": password.trim()}).to_string();
    let login = format!(
        "POST /v1/session HTTP/1.1\r\nhost: {0}\r\norigin: https://{0}\r\ncontent-type: application/json\r\n\
         connection: close\r\ncontent-length: {1}\r\n\r\n{body}",
        service.address,
        body.len()
    );
    let answer = https(&service, &pem, &login).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("; Secure"), "{answer}");
}

#[test]
fn commands_and_consoles_of_another_machine_go_by_https() {
    let mut service = service();
    let pem = certificate(&service);
    let path = |name: &str| service.path(name).display().to_string();
    let flags = ["--tls-cert", &path("cert.pem"), "--tls-key", &path("key.pem")].map(str::to_owned);
    service.serve(&[]);
    service.log_in("alice", &[]);
    service.ok(&["create", "hers", "--image", "good", "--owner", "alice"]);
    let token = service
        .ok(&["token", "add", "t", "--user", "alice", "--scope", "read", "--scope", "desktops", "--scope", "screen"]);
    service.end_serve();
    service.serve(&flags.each_ref().map(String::as_str));
    let url = format!("https://localhost:{}", service.address.rsplit(':').next().unwrap());
    let login = ["login", &url, "--token-stdin", "--ca-file", "cert.pem", "--name", "work"];
    let asked = elsewhere(&service, &login, &token);
    assert_eq!(asked.code, 0, "{asked:?}");
    fs::remove_file(service.path("cert.pem")).unwrap(); // what was trusted is remembered
    let kept = fs::read_to_string(service.path("config/yunju/contexts.json")).unwrap();
    assert!(kept.contains("BEGIN CERTIFICATE"), "{kept}");
    assert_eq!(elsewhere(&service, &["ls", "-o", "name"], "").out, "hers\n");
    let start = elsewhere(&service, &["start", "hers"], "");
    assert!(start.code == 0, "{start:?}");
    assert_eq!(elsewhere(&service, &["console", "hers", "--exec", "echo hello"], "").out, "hello\n");
    let answer = https(&service, &pem, HEALTH).unwrap();
    assert!(answer.to_lowercase().contains("strict-transport-security: max-age=31536000"), "{answer}");
}

#[test]
fn a_new_certificate_is_shown_after_sighup_and_one_that_is_wrong_never() {
    let mut service = service();
    let first = certificate(&service);
    let path = |name: &str| service.path(name).display().to_string();
    let flags = ["--tls-cert", &path("cert.pem"), "--tls-key", &path("key.pem")].map(str::to_owned);
    service.serve(&flags.each_ref().map(String::as_str));
    assert!(https(&service, &first, HEALTH).is_some());
    let second = certificate(&service);
    assert!(https(&service, &second, HEALTH).is_none());
    service.signal(rustix::process::Signal::HUP);
    until("the second is shown", || https(&service, &second, HEALTH).is_some());
    assert!(https(&service, &first, HEALTH).is_none());
    fs::write(service.path("cert.pem"), "nonsense").unwrap();
    service.signal(rustix::process::Signal::HUP);
    until("it is told", || service.log().contains("the certificate stays as it was"));
    assert!(https(&service, &second, HEALTH).is_some());
    assert_eq!(service.end_serve(), 0);
    assert!(!service.try_serve(&flags.each_ref().map(String::as_str)));
    assert!(service.log().contains("no certificate"), "{}", service.log());
}

#[test]
fn who_speaks_http_is_told_where_https_is_and_who_says_nothing_keeps_nobody_waiting() {
    let mut service = service();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    service.serve(&["--tls", "self-signed", "--http-redirect", &free]);
    let port = service.address.rsplit(':').next().unwrap();
    let silent: Vec<_> = (0..50).map(|_| TcpStream::connect(&service.address).unwrap()).collect();
    for address in [&service.address, &free] {
        let answer = plain(address, "GET /desktops/a?b=c HTTP/1.1\r\nhost: desk.example:80\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 308"), "{answer}");
        assert!(answer.contains(&format!("location: https://desk.example:{port}/desktops/a?b=c\r\n")), "{answer}");
        let answer = plain(address, "GET / HTTP/1.1\r\nhost: a b\r\n\r\n");
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    }
    let pem = fs::read_to_string(service.path("data/tls/cert.pem")).unwrap();
    assert!(https(&service, &pem, HEALTH).is_some());
    drop(silent);
}
