//! The pages need noVNC, which npm installs as `web/package-lock.json` says.

use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=web/pages");
    println!("cargo::rerun-if-changed=web/node_modules/@novnc/novnc/package.json");
    if !Path::new("web/node_modules/@novnc/novnc/core/rfb.js").is_file() {
        println!("cargo::error=noVNC is not installed in manager/web/node_modules: run `make deps`");
    }
}
