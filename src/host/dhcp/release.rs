//! Gives a lease back in the name of the guest that has it, so that dnsmasq forgets it while it runs.
//!
//! dnsmasq believes its leases, whatever its host entries say: an address that is leased goes to nobody else. It does heed
//! a guest that gives its lease back (RFC 2131, 4.4.6; RFC 8415, 18.2.7), and asks for no proof. The message is sent on this
//! host, bound to the bridge as if it had come in there.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn6, SockaddrStorage, bind, setsockopt, socket,
    sockopt::{BindToDevice, ReusePort},
};

use crate::host::dhcp::leases::{Client, Lease};
use crate::value::Mac;

/// How long to wait for the answer to a DHCPv6 message.
const ANSWER: Duration = Duration::from_secs(1);

/// Sends the message. Whether it was heeded shows in the lease file.
pub(super) fn send(lease: &Lease, server_duid: Option<&[u8]>, bridge: &str) -> io::Result<()> {
    let own = addresses(bridge)?;
    let servers: Vec<IpAddr> = own.iter().filter(|it| it.is_beside(lease.address)).map(|it| it.address.ip()).collect();
    if servers.is_empty() {
        return Err(io::Error::other(format!("`{bridge}` has no address beside {}", lease.address)));
    }
    // Where the host has a former gateway beside the present one, the server goes by one of them.
    servers.into_iter().try_for_each(|server| match (&lease.client, lease.address, server) {
        (Client::Mac(mac), IpAddr::V4(address), IpAddr::V4(server)) => {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            setsockopt(&socket, BindToDevice, &bridge.into())?;
            socket.send_to(&release_v4(*mac, address, server), (server, 67)).map(drop)
        }
        (Client::Duid { duid, iaid }, IpAddr::V6(address), IpAddr::V6(server)) => {
            let duid_of_server = server_duid.ok_or_else(|| io::Error::other("the lease file names no server"))?;
            let release = release_v6(duid, *iaid, duid_of_server, address);
            let link_local = own.iter().find_map(Own::link_local);
            let link_local = link_local.ok_or_else(|| io::Error::other("the bridge has no link-local address"))?;
            relay(&release, address, server, link_local, bridge)
        }
        _ => Err(io::ErrorKind::InvalidInput.into()),
    })
}

/// Passes a message of DHCPv6 on as a relay (RFC 8415, 19.1), and waits for the answer.
///
/// For a client that comes by itself dnsmasq would look among its neighbours, where the host is not, for half a second in
/// which it serves nobody. The answer comes to the port where dnsmasq listens; on the one address that we have it from, it
/// comes to us.
fn relay(message: &[u8], peer: Ipv6Addr, server: Ipv6Addr, own: SockaddrIn6, bridge: &str) -> io::Result<()> {
    let relayed = [&[12, 0][..], &server.octets(), &peer.octets(), &option(9, message)].concat();
    let socket = socket(AddressFamily::Inet6, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, ReusePort, &true)?;
    setsockopt(&socket, BindToDevice, &bridge.into())?;
    let own = SockaddrIn6::from(std::net::SocketAddrV6::new(own.ip(), 547, 0, own.scope_id()));
    bind(std::os::fd::AsRawFd::as_raw_fd(&socket), &own)?;
    let socket = UdpSocket::from(socket);
    socket.set_read_timeout(Some(ANSWER))?;
    socket.send_to(&relayed, (server, 547))?;
    socket.recv(&mut [0; 512]).map(drop)
}

/// An address of the host.
struct Own {
    address: SocketAddr,
    mask: Option<IpAddr>,
}

impl Own {
    /// Whether another address is on the same subnet.
    fn is_beside(&self, other: IpAddr) -> bool {
        match (self.address.ip(), self.mask, other) {
            (IpAddr::V4(own), Some(IpAddr::V4(mask)), IpAddr::V4(other)) => own & mask == other & mask,
            (IpAddr::V6(own), Some(IpAddr::V6(mask)), IpAddr::V6(other)) => own & mask == other & mask,
            _ => false,
        }
    }

    fn link_local(&self) -> Option<SockaddrIn6> {
        match self.address {
            SocketAddr::V6(address) if address.ip().is_unicast_link_local() => Some(address.into()),
            _ => None,
        }
    }
}

/// The addresses of the host on a bridge. That on a guest's subnet is how the server calls itself there.
fn addresses(bridge: &str) -> io::Result<Vec<Own>> {
    let read = |storage: Option<SockaddrStorage>| -> Option<SocketAddr> {
        let storage = storage?;
        let v4 = storage.as_sockaddr_in().map(|it| SocketAddr::V4((*it).into()));
        v4.or(storage.as_sockaddr_in6().map(|it| SocketAddr::V6((*it).into())))
    };
    let mine = getifaddrs()?.filter(|it| it.interface_name == bridge);
    Ok(mine
        .filter_map(|it| Some(Own { address: read(it.address)?, mask: read(it.netmask).map(|it| it.ip()) }))
        .collect())
}

/// DHCPRELEASE (RFC 2131, 2 and 4.4.6).
fn release_v4(mac: Mac, address: Ipv4Addr, server: Ipv4Addr) -> Vec<u8> {
    // BOOTREQUEST over Ethernet, and a transaction that nobody answers.
    let mut message = vec![1, 1, 6, 0];
    message.resize(12, 0);
    message.extend(address.octets());
    message.resize(28, 0);
    message.extend(mac.0);
    message.resize(236, 0);
    message.extend([0x63, 0x82, 0x53, 0x63]);
    // The type of the message, the server, the end.
    message.extend([53, 1, 7, 54, 4]);
    message.extend(server.octets());
    message.push(255);
    message.resize(300, 0);
    message
}

/// Release (RFC 8415, 18.2.7).
fn release_v6(duid: &[u8], iaid: u32, server_duid: &[u8], address: Ipv6Addr) -> Vec<u8> {
    // The lifetimes of an address that is given back are 0, and so are the times of renewal.
    let address = option(5, &[&address.octets()[..], &[0; 8]].concat());
    let association = option(3, &[&iaid.to_be_bytes()[..], &[0; 8], &address].concat());
    [&[8, 0, 0, 0][..], &option(1, duid), &option(2, server_duid), &association, &option(8, &[0, 0])].concat()
}

/// An option of DHCPv6 (RFC 8415, 21.1).
fn option(code: u16, value: &[u8]) -> Vec<u8> {
    // Ours are short: a DUID has at most 130 bytes.
    let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
    [&code.to_be_bytes()[..], &length.to_be_bytes(), value].concat()
}
