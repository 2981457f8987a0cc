//! `novella vnc`.

use crate::cli::servers::{Servers, machine};
use crate::cli::{Global, Stop, candidates};
use crate::report;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The server, as `web` or `server.web`
    #[arg(add = candidates::servers())]
    server: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Result<(), Stop> {
    let servers = Servers::read(global)?;
    let server = &servers.one(&arguments.server)?.server;
    let target = servers.target(global)?;
    let (host, port) = machine(&target, "look at")?.hypervisor().vnc(server)?;
    let shown = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    let viewer = format!("remote-viewer vnc://{shown}:{port}");
    if arguments.json {
        let json = serde_json::json!({
            "format_version": "1.0", "server": server, "address": host, "port": port, "viewer": viewer,
        });
        report::out(report::json::document(&json));
    } else {
        report::line(format_args!("{}:{port}", report::clean_line(&shown)));
        report::note(format_args!(
            "note: to look at it: `{}`; from elsewhere after `ssh -L {port}:{}:{port} HOST`",
            report::clean_line(&viewer),
            report::clean_line(&shown),
        ));
    }
    Ok(())
}
