//! What the kernel tells: of links, addresses and nft tables over netlink, and of the end of processes by their pidfds.
//!
//! One thread waits for all of it, and does nothing but tell; it needs no clock.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use rtnetlink::packet_core::{NetlinkBuffer, NetlinkMessage, NetlinkPayload, NlasIterator};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkMessage};
use rtnetlink::sys::protocols::{NETLINK_NETFILTER, NETLINK_ROUTE};
use rtnetlink::sys::{Socket, SocketAddr};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::address::Name;
use crate::blueprint::identity::TAP;
use crate::blueprint::key::{firewall_table, link_mark};
use crate::watch::events::{Heard, Tell};

// The groups of rtnetlink(7), as bits.
const LINKS: u32 = 1;
const ADDRESSES: u32 = 0x10 | 0x100;

/// `NFNLGRP_NFTABLES` of `linux/netfilter/nfnetlink.h`, as a bit.
const TABLES: u32 = 1 << (7 - 1);

/// The header of a message of nfnetlink, and the attribute that has the name of the table in all of those of nftables.
const NFGENMSG: usize = 4;
const TABLE: u16 = 1;

// What woke the thread up.
const LINK: u64 = 0;
const RULE: u64 = 1;
const PROCESS: u64 = 2;
const END: u64 = 3;

/// Hears the kernel of the network namespace that the opening thread was in, as long as it lives.
pub(super) struct Kernel {
    epoll: Arc<Epoll>,
    end: EventFd,
}

impl Kernel {
    /// # Errors
    /// When the kernel does not tell.
    pub(super) fn hear(project: &Name, tell: Tell) -> io::Result<Self> {
        let ears = Ears {
            links: socket(NETLINK_ROUTE, LINKS | ADDRESSES)?,
            rules: socket(NETLINK_NETFILTER, TABLES)?,
            table: firewall_table(project),
            ours: Ours::find(link_mark(project)),
        };
        let epoll = Arc::new(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?);
        let end = EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?;
        let readable = |what| EpollEvent::new(EpollFlags::EPOLLIN, what);
        epoll.add(&ears.links, readable(LINK))?;
        epoll.add(&ears.rules, readable(RULE))?;
        epoll.add(&end, readable(END))?;
        let its = Arc::clone(&epoll);
        thread::Builder::new().name("kernel".into()).spawn(move || ears.hear_on(&its, &tell))?;
        Ok(Self { epoll, end })
    }

    /// Also hears the end of a process, as long as what is given back lives.
    ///
    /// # Errors
    /// When it has ended.
    pub(super) fn hear_end_of(&self, pid: i32) -> io::Result<OwnedFd> {
        let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
        let process = pidfd_open(pid, PidfdFlags::empty())?;
        // Once: it stays readable for good.
        self.epoll.add(&process, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT, PROCESS))?;
        Ok(process)
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        // It can only fail when it was written to 2^64 times.
        let _ = self.end.write(1);
    }
}

/// A socket that hears these groups.
fn socket(protocol: isize, groups: u32) -> io::Result<Socket> {
    let mut socket = Socket::new(protocol)?;
    socket.set_non_blocking(true)?;
    socket.bind(&SocketAddr::new(0, groups))?;
    Ok(socket)
}

/// The links that may be ours: bridges by their mark, whatever they are called, and taps by their names.
struct Ours {
    mark: String,
    /// Their indices, for messages of addresses have nothing else.
    indices: BTreeSet<u32>,
}

impl Ours {
    /// Those that are there.
    fn find(mark: String) -> Self {
        let mut ours = Self { mark, indices: BTreeSet::new() };
        for entry in fs::read_dir("/sys/class/net").into_iter().flatten().filter_map(Result::ok) {
            let told = |what: &str| fs::read_to_string(entry.path().join(what)).ok();
            if (entry.file_name().to_str().is_some_and(is_tap) || told("ifalias").is_some_and(|it| ours.is_marked(&it)))
                && let Some(index) = told("ifindex").and_then(|it| it.trim().parse().ok())
            {
                ours.indices.insert(index);
            }
        }
        ours
    }

    fn is_marked(&self, alias: &str) -> bool {
        alias.starts_with(&self.mark)
    }

    /// Whether a message is about one of them.
    fn has(&mut self, message: &RouteNetlinkMessage) -> bool {
        let is_ours = |link: &LinkMessage| {
            link.attributes.iter().any(|it| match it {
                LinkAttribute::IfName(name) => is_tap(name),
                LinkAttribute::IfAlias(alias) => self.is_marked(alias),
                _ => false,
            })
        };
        match message {
            RouteNetlinkMessage::NewLink(link) => {
                let is_ours = is_ours(link);
                if is_ours {
                    self.indices.insert(link.header.index);
                }
                is_ours || self.indices.contains(&link.header.index)
            }
            RouteNetlinkMessage::DelLink(link) => is_ours(link) | self.indices.remove(&link.header.index),
            RouteNetlinkMessage::NewAddress(it) | RouteNetlinkMessage::DelAddress(it) => {
                self.indices.contains(&it.header.index)
            }
            _ => false,
        }
    }
}

fn is_tap(link: &str) -> bool {
    link.starts_with(TAP)
}

struct Ears {
    links: Socket,
    rules: Socket,
    table: String,
    ours: Ours,
}

impl Ears {
    fn hear_on(mut self, epoll: &Epoll, tell: &Tell) {
        let mut events = [EpollEvent::empty(); 8];
        loop {
            let count = match epoll.wait(&mut events, EpollTimeout::NONE) {
                Ok(count) => count,
                Err(nix::errno::Errno::EINTR) => continue,
                Err(error) => {
                    tracing::warn!(%error, "the kernel is not heard any more");
                    return;
                }
            };
            let mut concerns = false;
            for event in &events[..count] {
                concerns |= match event.data() {
                    LINK => self.read_links(),
                    RULE => self.read_rules(),
                    PROCESS => true,
                    _ => return,
                };
            }
            if concerns {
                tell(Heard::Something);
            }
        }
    }

    fn read_links(&mut self) -> bool {
        let Self { links, ours, .. } = self;
        read(links, |message| match NetlinkMessage::<RouteNetlinkMessage>::deserialize(message) {
            Ok(NetlinkMessage { payload: NetlinkPayload::InnerMessage(message), .. }) => ours.has(&message),
            // What cannot be read may be anything.
            Ok(_) | Err(_) => true,
        })
    }

    fn read_rules(&self) -> bool {
        read(&self.rules, |message| rule_concerns(message, &self.table))
    }
}

/// Reads all messages that are there, and tells whether any concerns us. What was lost may have.
fn read(socket: &Socket, mut concerns: impl FnMut(&[u8]) -> bool) -> bool {
    let mut any = false;
    loop {
        match socket.recv_from_full() {
            Ok((datagram, _)) => {
                let mut rest = &datagram[..];
                while let Some((message, more)) = split(rest) {
                    any |= concerns(message);
                    rest = more;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return any,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // More came than there was room for (`ENOBUFS`).
            Err(_) => return true,
        }
    }
}

/// The first message, and what comes after it.
fn split(datagram: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = NetlinkBuffer::new_checked(datagram).ok()?.length() as usize;
    let (message, _) = datagram.split_at_checked(length)?;
    Some((message, datagram.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

fn rule_concerns(message: &[u8], table: &str) -> bool {
    let Ok(message) = NetlinkBuffer::new_checked(message) else { return true };
    let Some(attributes) = message.payload().get(NFGENMSG..) else { return true };
    NlasIterator::new(attributes)
        .map_while(Result::ok)
        .any(|it| it.kind() == TABLE && it.value().strip_suffix(b"\0") == Some(table.as_bytes()))
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::address::AddressMessage;

    use super::*;

    #[test]
    fn a_bridge_is_known_by_its_mark_and_a_tap_by_its_name() {
        let mut ours = Ours { mark: link_mark(&"default".parse().expect("a name")), indices: BTreeSet::new() };
        let link = |index, name: &str, alias: Option<&str>| {
            let mut link = LinkMessage::default();
            link.header.index = index;
            link.attributes.push(LinkAttribute::IfName(name.into()));
            link.attributes.extend(alias.map(|alias| LinkAttribute::IfAlias(alias.into())));
            link
        };
        let address = |index| {
            let mut address = AddressMessage::default();
            address.header.index = index;
            RouteNetlinkMessage::NewAddress(address)
        };
        assert!(!ours.has(&address(7)));
        assert!(ours.has(&RouteNetlinkMessage::NewLink(link(7, "br-mine", Some("novella:default:network.a")))));
        assert!(ours.has(&address(7)));
        assert!(ours.has(&RouteNetlinkMessage::NewLink(link(8, "tap0123", None))));
        assert!(!ours.has(&RouteNetlinkMessage::NewLink(link(9, "brq0123", None))));
        assert!(!ours.has(&RouteNetlinkMessage::NewLink(link(10, "brq4567", Some("novella:other:network.a")))));
        // It lost its mark, and is still the one that was ours.
        assert!(ours.has(&RouteNetlinkMessage::NewLink(link(7, "br-mine", None))));
        assert!(ours.has(&RouteNetlinkMessage::DelLink(link(7, "br-mine", None))));
        assert!(!ours.has(&address(7)));
    }
}
