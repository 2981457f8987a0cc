//! Asking a guest whether it has its address.

use std::io;
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{Links, failed, valid};
use crate::host::HostError;
use crate::value::Mac;

const ENOENT: i32 = 2;

/// Between two looks at what came of it.
const LOOK: Duration = Duration::from_millis(20);

impl Links {
    /// Whether a guest on a bridge has the address now, asked by ARP, or by neighbour discovery for IPv6. Only the one with
    /// this MAC address is asked.
    ///
    /// The kernel does it: its entry is set to be probed, and is reachable again once the guest has answered. So what
    /// the kernel knew of the address before, from an earlier boot perhaps, does not count.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn answers(&self, bridge: &str, address: IpAddr, mac: Mac, patience: Duration) -> Result<bool, HostError> {
        let deed = || format!("cannot ask for {address} on `{bridge}`");
        let Some(link) = self.link(valid(bridge)?)? else { return Ok(false) };
        let mut question = NeighbourMessage::default();
        question.header.ifindex = link.index;
        (question.header.family, question.attributes) = match address {
            IpAddr::V4(ip) => (AddressFamily::Inet, vec![NeighbourAttribute::Destination(NeighbourAddress::Inet(ip))]),
            IpAddr::V6(ip) => {
                (AddressFamily::Inet6, vec![NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip))])
            }
        };
        let mut probe = question.clone();
        probe.header.state = NeighbourState::Probe;
        probe.attributes.push(NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()));
        self.netlink.replace(RouteNetlinkMessage::NewNeighbour(probe)).map_err(|error| failed(deed(), error))?;
        let deadline = Instant::now() + patience;
        loop {
            let state = self.state(&question, mac).map_err(|error| failed(deed(), error))?;
            match state {
                Some(NeighbourState::Reachable) => return Ok(true),
                Some(NeighbourState::Probe) if Instant::now() < deadline => thread::sleep(LOOK),
                _ => return Ok(false),
            }
        }
    }

    /// What the kernel knows of a neighbour; nothing unless it has this MAC address.
    fn state(&self, question: &NeighbourMessage, mac: Mac) -> io::Result<Option<NeighbourState>> {
        let answer = match self.netlink.get(RouteNetlinkMessage::GetNeighbour(question.clone())) {
            Err(error) if error.raw_os_error() == Some(ENOENT) => return Ok(None),
            answer => answer?,
        };
        let its = NeighbourAttribute::LinkLayerAddress(mac.0.to_vec());
        Ok(answer.into_iter().find_map(|message| match message {
            RouteNetlinkMessage::NewNeighbour(it) => it.attributes.contains(&its).then_some(it.header.state),
            _ => None,
        }))
    }
}
