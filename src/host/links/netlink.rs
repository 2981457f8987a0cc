//! Requests to the kernel over rtnetlink and their answers. All that is asynchronous in novella happens in here.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload,
};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::proto::{self, ConnectionHandle};
use rtnetlink::sys::{SocketAddr, protocols::NETLINK_ROUTE};
use tokio::runtime::{Builder, Runtime};

/// How long the kernel may take to answer. It answers within the call that asks, unless something holds its lock.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a list is asked for again because it changed while the kernel wrote it down.
const DUMP_ATTEMPTS: u32 = 20;

type Message = NetlinkMessage<RouteNetlinkMessage>;

/// A connection to the kernel of the network namespace that the opening thread was in. May be used by many threads.
pub(super) struct Netlink {
    handle: ConnectionHandle<RouteNetlinkMessage>,
    runtime: Runtime,
    /// Held while a list is asked for: the kernel writes one list at a time to a socket and refuses another (`EBUSY`).
    listing: Mutex<()>,
}

impl Netlink {
    /// Opens a connection.
    pub(super) fn open() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
        let guard = runtime.enter();
        let (mut connection, handle, _) = proto::new_connection(NETLINK_ROUTE)?;
        connection.set_forward_ack(true);
        connection.set_forward_done(true);
        runtime.spawn(connection);
        drop(guard);
        Ok(Self { handle, runtime, listing: Mutex::new(()) })
    }

    /// Everything of one kind. Asks again if it changed meanwhile, for then some of it may be missing.
    pub(super) fn dump(&self, question: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        let _alone = self.listing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut attempts = 1;
        loop {
            match self.send(vec![message(question.clone(), NLM_F_DUMP)]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted && attempts < DUMP_ATTEMPTS => attempts += 1,
                answer => return answer,
            }
        }
    }

    /// One thing.
    pub(super) fn get(&self, question: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.send(vec![message(question, NLM_F_ACK)])
    }

    /// Changes what exists.
    pub(super) fn change(&self, order: RouteNetlinkMessage) -> io::Result<()> {
        self.send(vec![message(order, NLM_F_ACK)]).map(drop)
    }

    /// Makes something, in place of what there is of it.
    pub(super) fn replace(&self, order: RouteNetlinkMessage) -> io::Result<()> {
        self.send(vec![message(order, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE)]).map(drop)
    }

    /// Makes something that must not exist yet.
    pub(super) fn create(&self, order: RouteNetlinkMessage) -> io::Result<()> {
        self.send(vec![message(order, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL)]).map(drop)
    }

    /// Makes something that must not exist yet and changes it, in one system call: a process that is killed has done
    /// both or neither. If the first fails, the kernel does the second all the same.
    pub(super) fn create_and_change(&self, create: RouteNetlinkMessage, change: RouteNetlinkMessage) -> io::Result<()> {
        let create = message(create, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL);
        self.send(vec![create, message(change, NLM_F_ACK)]).map(drop)
    }

    /// Sends the messages in one datagram, which the kernel works off within the one system call, and gathers the
    /// answers to all of them.
    fn send(&self, messages: Vec<Message>) -> io::Result<Vec<RouteNetlinkMessage>> {
        let expected = messages.len();
        self.runtime.block_on(async {
            let answers = self.handle.request_batch(messages, SocketAddr::new(0, 0)).map_err(|_| closed())?;
            tokio::time::timeout(ANSWER_TIMEOUT, gather(answers, expected)).await.unwrap_or_else(|_| {
                Err(io::Error::new(io::ErrorKind::TimedOut, "the kernel did not answer within 10 seconds"))
            })
        })
    }
}

async fn gather(
    mut answers: impl Stream<Item = Message> + Unpin,
    expected: usize,
) -> io::Result<Vec<RouteNetlinkMessage>> {
    let (mut found, mut finished, mut interrupted, mut refusal) = (Vec::new(), 0, false, None);
    while let Some(answer) = answers.next().await {
        interrupted |= answer.header.flags & NLM_F_DUMP_INTR != 0;
        match answer.payload {
            NetlinkPayload::InnerMessage(inner) => found.push(inner),
            NetlinkPayload::Error(error) => {
                finished += 1;
                if error.code.is_some() {
                    refusal.get_or_insert(error.to_io());
                }
            }
            NetlinkPayload::Done(done) => {
                finished += 1;
                if done.code != 0 {
                    refusal.get_or_insert(io::Error::from_raw_os_error(done.code.saturating_abs()));
                }
            }
            _ => {}
        }
    }
    match refusal {
        Some(refusal) => Err(refusal),
        None if finished < expected => Err(closed()),
        None if interrupted => {
            Err(io::Error::new(io::ErrorKind::Interrupted, "the list changed while the kernel wrote it down"))
        }
        None => Ok(found),
    }
}

fn message(inner: RouteNetlinkMessage, flags: u16) -> Message {
    let mut message = NetlinkMessage::from(inner);
    message.header.flags = NLM_F_REQUEST | flags;
    message
}

fn closed() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the netlink connection is closed")
}
