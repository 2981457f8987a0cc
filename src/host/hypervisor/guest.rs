//! What people do to one guest by hand: turn it on and off, sit at its console, look at its screen.
//!
//! As everywhere, only domains that carry our mark are looked at or touched.

use std::time::{Duration, SystemTime};

use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::{Error, ErrorNumber};
use virt::stream::Stream;
use virt::sys;

use super::connection::{LibvirtError, failed, is};
use super::power::{self, State};
use super::{Hypervisor, SHUTDOWN_TIMEOUT};
use crate::address::Name;
use crate::host::HostError;

/// Where libvirt notes which process a guest is.
const PIDS: &str = "/run/libvirt/qemu";

/// The domain of a server.
struct Its<'a> {
    connect: &'a Connect,
    name: &'a str,
    domain: &'a Domain,
    shutdown_timeout: Option<u32>,
}

/// The serial console of a guest. Reading and writing may be done by two threads.
pub struct Console {
    stream: Stream,
    connect: Connect,
}

impl Console {
    /// Waits for the guest to say something. Gives how many bytes it said; 0 when the console was closed, because the guest
    /// is off or somebody else took it.
    ///
    /// # Errors
    /// When libvirt cannot be reached any more.
    pub fn read(&self, buffer: &mut [u8]) -> Result<usize, HostError> {
        match self.stream.recv(buffer) {
            Ok(read) => Ok(usize::try_from(read).unwrap_or(0)),
            Err(error) => self.closed("cannot read from the console", error).map(|()| 0),
        }
    }

    /// Types something into it. Nothing happens when it was closed.
    ///
    /// # Errors
    /// When libvirt cannot be reached any more.
    pub fn write(&self, mut bytes: &[u8]) -> Result<(), HostError> {
        while !bytes.is_empty() {
            match self.stream.send(bytes) {
                Ok(sent) => bytes = usize::try_from(sent).ok().and_then(|sent| bytes.get(sent..)).unwrap_or_default(),
                Err(error) => return self.closed("cannot write to the console", error),
            }
        }
        Ok(())
    }

    /// libvirt tells of the end of a stream by an error too, and the connection is then as good as before.
    fn closed(&self, deed: &str, error: Error) -> Result<(), HostError> {
        if !self.connect.is_alive().unwrap_or(false) {
            return Err(failed(deed, error));
        }
        tracing::debug!(error = %LibvirtError(error), "the console was closed");
        Ok(())
    }
}

impl Hypervisor {
    /// What the guest of a server is doing, in the words of the fact `power`; nothing where there is no such domain.
    ///
    /// # Errors
    /// When libvirt cannot be reached.
    pub fn power(&self, server: &Name) -> Result<Option<String>, HostError> {
        self.with(server, |Its { name, domain, .. }| {
            let state = power::state(domain).map_err(|error| failed(format!("cannot look at domain `{name}`"), error));
            Ok(Some(state?.to_string()))
        })
    }

    /// Turns the guest of a server on, with the definition that it has. Tells whether it was not on before.
    ///
    /// # Errors
    /// When there is no such domain, or it does not start.
    pub fn start(&self, server: &Name) -> Result<bool, HostError> {
        let done = self.with(server, |Its { name, domain, .. }| {
            power::rouse(domain, name).map(Some).map_err(|error| match error.help {
                None => error.help("`novella plan` tells whether something that it needs is missing"),
                Some(_) => error,
            })
        })?;
        done.ok_or_else(|| missing(server))
    }

    /// Shuts the guest of a server down, by force when its time to shut down is over, or at once. Tells whether it was
    /// not off before.
    ///
    /// # Errors
    /// When there is no such domain, or even force does not help.
    pub fn stop(&self, server: &Name, at_once: bool) -> Result<bool, HostError> {
        let done = self.with(server, |Its { name, domain, shutdown_timeout, .. }| {
            let state =
                power::state(domain).map_err(|error| failed(format!("cannot look at domain `{name}`"), error))?;
            if state == State::Off {
                return Ok(Some(false));
            }
            let patience = if at_once { 0 } else { shutdown_timeout.unwrap_or(SHUTDOWN_TIMEOUT) };
            power::stop(domain, name, Duration::from_secs(patience.into()))?;
            Ok(Some(true))
        })?;
        done.ok_or_else(|| missing(server))
    }

    /// Opens the serial console of a running guest. Only one may have it; `take` takes it from whoever has it.
    ///
    /// # Errors
    /// When the guest does not run, or somebody else is at its console.
    pub fn console(&self, server: &Name, take: bool) -> Result<Console, HostError> {
        let console = self.with(server, |Its { connect, name, domain, .. }| {
            let cannot = |error| failed(format!("cannot open the console of domain `{name}`"), error);
            if power::state(domain).map_err(cannot)? == State::Off {
                return Err(off(server));
            }
            let stream = Stream::new(connect, 0).map_err(cannot)?;
            let flags = if take { sys::VIR_DOMAIN_CONSOLE_FORCE } else { 0 };
            domain.open_console(None, &stream, flags).map_err(|error| {
                let busy = is(&error, &[ErrorNumber::OperationFailed]) && error.message().contains("Active console");
                let error = cannot(error);
                if busy { error.help("somebody else is at it; `--force` takes it from them") } else { error }
            })?;
            Ok(Some(Console { stream, connect: connect.clone() }))
        })?;
        console.ok_or_else(|| missing(server))
    }

    /// Where the screen of a running guest can be seen by VNC: an address of this host and a port.
    ///
    /// # Errors
    /// When the guest does not run, or has no such screen.
    pub fn vnc(&self, server: &Name) -> Result<(String, u16), HostError> {
        let screen = self.with(server, |Its { name, domain, .. }| {
            let cannot = |error| failed(format!("cannot look at domain `{name}`"), error);
            if power::state(domain).map_err(cannot)? == State::Off {
                return Err(off(server));
            }
            let xml = domain.xml_desc(0).map_err(cannot)?;
            let screen = screen(&xml).ok_or_else(|| {
                HostError::refused(format!("`server.{server}` has no screen that is seen by VNC"))
                    .help("it was taken away by hand, perhaps; `novella console` has its serial console")
            });
            screen.map(Some)
        })?;
        screen.ok_or_else(|| missing(server))
    }

    /// Since when the domain of this name runs; nothing where that cannot be told.
    pub fn running_since(domain: &str) -> Option<SystemTime> {
        std::fs::metadata(format!("{PIDS}/{domain}.pid")).and_then(|file| file.modified()).ok()
    }

    /// Does something with the one domain of a server; nothing where there is none.
    fn with<T>(
        &self,
        server: &Name,
        deed: impl Fn(Its<'_>) -> Result<Option<T>, HostError>,
    ) -> Result<Option<T>, HostError> {
        self.connection.run(|connect| match &self.ours(connect, server.as_str())?[..] {
            [] => Ok(None),
            [(name, domain, marked)] => deed(Its { connect, name, domain, shutdown_timeout: marked.shutdown_timeout }),
            several => {
                let names: Vec<String> = several.iter().map(|(name, ..)| format!("`{name}`")).collect();
                Err(HostError::refused(format!("several domains carry the mark of `server.{server}`"))
                    .help(format!("undefine all but one of {}", names.join(", "))))
            }
        })
    }
}

fn missing(server: &Name) -> HostError {
    HostError::refused(format!("there is no domain of `server.{server}` on this host"))
        .help("`novella apply` makes it anew")
}

fn off(server: &Name) -> HostError {
    HostError::refused(format!("`server.{server}` is shut off")).help(format!("`novella start {server}` turns it on"))
}

/// Where the VNC server of a running guest listens, as its XML tells.
fn screen(xml: &str) -> Option<(String, u16)> {
    let document = roxmltree::Document::parse(xml).ok()?;
    let mut screens = document.descendants().filter(|node| node.has_tag_name("graphics"));
    screens.find_map(|node| {
        let port = node.attribute("port")?.parse().ok()?;
        (node.attribute("type") == Some("vnc")).then(|| (node.attribute("listen").unwrap_or("127.0.0.1").into(), port))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_screen_of_a_running_guest_has_a_port() {
        let seen = |graphics: &str| screen(&format!("<domain><devices>{graphics}</devices></domain>"));
        let address = "<listen type='address' address='127.0.0.1'/></graphics>";
        let live = format!("<graphics type='vnc' port='5901' autoport='yes' listen='127.0.0.1'>{address}");
        assert_eq!(seen(&live), Some(("127.0.0.1".into(), 5901)));
        for none in ["", "<graphics type='vnc' port='-1' autoport='yes'/>", "<graphics type='spice' port='5902'/>"] {
            assert_eq!(seen(none), None, "{none}");
        }
    }
}
