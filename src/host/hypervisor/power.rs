//! Brings a domain to run, or to rest.
//!
//! Level-triggered: look, do the next thing, look again. So it does not matter where an earlier run was cut off, or what
//! somebody else does to the domain meanwhile.

use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use virt::domain::{Domain, DomainPausedReason, DomainState, DomainStateReason};
use virt::enumutil::Enum;
use virt::error::{Error, ErrorNumber};

use super::connection::{LibvirtError, failed, is, lost_in_transit};
use super::{differs_from_guest, read};
use crate::blueprint::object::{self, Power};
use crate::host::HostError;

/// Between two looks (reference F4 has 0.5 s).
const POLL: Duration = Duration::from_millis(50);

/// How long a guest may take to get where it should be, apart from shutting down.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Between two presses of the power button. A guest that is still booting does not feel the first.
const PRESS_EVERY: Duration = Duration::from_secs(5);

/// A start that restores a saved guest may bring back an old definition, and is then done again; more is a fault.
const MAX_STARTS: u32 = 2;

/// What a domain is doing, shown in the words of the fact `power`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    On,
    Off,
    Stopping,
    Suspended,
    Paused(Pause),
}

/// Why a domain is paused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Pause {
    /// Somebody paused it.
    Asked,
    /// A disk could not be written, as a rule because the host's is full.
    IoError,
    /// The guest's kernel crashed.
    Crashed,
    /// libvirt is at work on it.
    Busy,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::On => Power::On.as_str(),
            Self::Off => Power::Off.as_str(),
            Self::Stopping => "shutting down",
            Self::Suspended => "suspended",
            Self::Paused(Pause::Asked) => "paused",
            Self::Paused(Pause::IoError) => "paused (io error)",
            Self::Paused(Pause::Crashed) => "paused (crashed)",
            Self::Paused(Pause::Busy) => "paused (busy)",
        })
    }
}

/// What the domain is doing. One that is gone is off.
pub(super) fn state(domain: &Domain) -> Result<State, Error> {
    // Not `Domain::state`: it gives an answer even where libvirt gave none.
    let info = match domain.info() {
        Ok(info) => info,
        Err(error) if is(&error, &[ErrorNumber::NoDomain]) => return Ok(State::Off),
        Err(error) => return Err(error),
    };
    Ok(match info.state {
        Enum::Known(DomainState::Shutoff | DomainState::Crashed) => State::Off,
        Enum::Known(DomainState::Shutdown) => State::Stopping,
        Enum::Known(DomainState::PMSuspended) => State::Suspended,
        Enum::Known(DomainState::Paused) => State::Paused(pause(domain)),
        // A driver that cannot tell more of a domain than that it is active says no state or a new one.
        Enum::Known(DomainState::Running | DomainState::Blocked | DomainState::NoState) | Enum::Unknown(_) => State::On,
    })
}

fn pause(domain: &Domain) -> Pause {
    use DomainPausedReason as Reason;
    let Ok((_, Enum::Known(DomainStateReason::Paused(Enum::Known(reason))))) = domain.state() else {
        return Pause::Busy;
    };
    match reason {
        Reason::IOError => Pause::IoError,
        Reason::Crashed => Pause::Crashed,
        Reason::Unknown | Reason::User | Reason::Watchdog | Reason::FromSnapshot | Reason::APIError => Pause::Asked,
        Reason::Migration
        | Reason::Save
        | Reason::Dump
        | Reason::ShuttingDown
        | Reason::Snapshot
        | Reason::StartingUp
        | Reason::PostCopy
        | Reason::PostCopyFailed => Pause::Busy,
    }
}

/// Brings a defined domain to the power that is wanted. A guest that runs another definition than the present one is started
/// again if it may be.
///
/// # Errors
/// When it cannot be started or forced off, or does not get there in time.
pub(super) fn settle(
    domain: &Domain,
    wanted: &object::Domain,
    may_restart: bool,
    before_start: &dyn Fn(),
) -> Result<(), HostError> {
    let name = &wanted.name;
    let look = |error| failed(format!("cannot look at domain `{name}`"), error);
    let patience = Duration::from_secs(wanted.shutdown_timeout.into());
    let mut deadline = Instant::now() + SETTLE_TIMEOUT;
    let mut starts = 0;
    let mut resumed = false;
    loop {
        match (wanted.power, state(domain).map_err(look)?) {
            (Power::Off, State::Off) | (Power::Unmanaged, _) => return Ok(()),
            (Power::On, State::On) => {
                if !may_restart || !differs_from_guest(wanted, &read(domain, 0).map_err(look)?) {
                    return Ok(());
                }
                if starts == MAX_STARTS {
                    return Err(HostError::refused(format!("domain `{name}` does not start as it is defined")));
                }
                tracing::info!(domain = name, "shutting down, to start with the new definition");
                stop(domain, name, patience)?;
                deadline = Instant::now() + SETTLE_TIMEOUT;
            }
            (Power::Off, _) => stop(domain, name, patience)?,
            (Power::On, State::Off) => {
                if starts == MAX_STARTS {
                    return Err(HostError::refused(format!("domain `{name}` stops as soon as it is started"))
                        .help(format!("see /var/log/libvirt/qemu/{name}.log and {}", wanted.console_log.display())));
                }
                starts += 1;
                before_start();
                start(domain, name)?;
                continue;
            }
            (Power::On, State::Paused(Pause::Asked | Pause::IoError)) if !resumed => {
                resumed = true;
                domain.resume().map_err(|error| failed(format!("cannot resume domain `{name}`"), error))?;
            }
            (Power::On, State::Suspended) if !resumed => {
                resumed = true;
                domain.pm_wakeup(0).map_err(|error| failed(format!("cannot wake domain `{name}`"), error))?;
            }
            // Never by a restart: what the guest has not yet written would be lost.
            (Power::On, State::Paused(Pause::IoError)) => {
                return Err(HostError::refused(format!("domain `{name}` is paused: its disk cannot be written"))
                    .help(format!("make room where {} is, then apply again", wanted.disk.display())));
            }
            (Power::On, State::Paused(Pause::Crashed)) => {
                return Err(HostError::refused(format!("domain `{name}` is paused: its kernel crashed"))
                    .help(format!("see {}, then `virsh reset {name}`", wanted.console_log.display())));
            }
            (Power::On, state @ (State::Stopping | State::Suspended | State::Paused(_))) => {
                if Instant::now() >= deadline {
                    return Err(HostError::refused(format!("domain `{name}` is still {state}")).transient(true));
                }
            }
        }
        thread::sleep(POLL);
    }
}

fn start(domain: &Domain, name: &str) -> Result<(), HostError> {
    let Err(error) = domain.create() else { return Ok(()) };
    // Somebody else may have been quicker.
    if !lost_in_transit(&error) && matches!(state(domain), Ok(State::On)) {
        return Ok(());
    }
    let said = error.message();
    let help = if said.contains("virtlogd") {
        Some("start virtlogd, which writes the console logs: `systemctl start virtlogd.socket`, or `virtlogd -d`")
    } else if said.contains("Permission denied") {
        Some("the user that runs QEMU must be able to pass every directory above the disk: `chmod o+x` them")
    } else if said.contains("already in use by") {
        // QEMU's lock on a qcow2 file.
        Some("another guest runs on this disk")
    } else {
        None
    };
    let error = failed(format!("cannot start domain `{name}`"), error);
    Err(match help {
        Some(help) => error.help(help),
        None => error,
    })
}

/// Shuts a domain down: by its power button as long as it has `patience`, then by force.
///
/// # Errors
/// When even force does not help.
pub(super) fn stop(domain: &Domain, name: &str, patience: Duration) -> Result<(), HostError> {
    let cannot = |error| failed(format!("cannot shut down domain `{name}`"), error);
    let begun = Instant::now();
    let mut next_press = begun;
    let mut resumed = false;
    while begun.elapsed() < patience {
        match state(domain).map_err(cannot)? {
            State::Off => return Ok(()),
            // A paused guest does not feel the button.
            State::Paused(Pause::Asked | Pause::IoError) if !resumed => {
                resumed = true;
                ignorable(domain.resume()).map_err(cannot)?;
            }
            State::Suspended if !resumed => {
                resumed = true;
                ignorable(domain.pm_wakeup(0)).map_err(cannot)?;
            }
            State::Paused(Pause::IoError | Pause::Crashed) => break,
            State::On if Instant::now() >= next_press => {
                next_press = Instant::now() + PRESS_EVERY;
                ignorable(domain.shutdown()).map_err(cannot)?;
            }
            State::On | State::Stopping | State::Suspended | State::Paused(_) => {}
        }
        thread::sleep(POLL);
    }
    if !patience.is_zero() {
        tracing::warn!(domain = name, waited = ?begun.elapsed(), "the guest does not shut down: forcing it off");
    }
    match domain.destroy() {
        Ok(()) => Ok(()),
        Err(error) if !lost_in_transit(&error) && matches!(state(domain), Ok(State::Off)) => {
            tracing::debug!(domain = name, error = %LibvirtError(error), "it had shut down by itself");
            Ok(())
        }
        Err(error) => Err(failed(format!("cannot force off domain `{name}`"), error)),
    }
}

/// Brings a domain to run with the definition that it has. Tells whether it did not run before.
///
/// # Errors
/// When it cannot be started, or does not get there in time.
pub(super) fn rouse(domain: &Domain, name: &str) -> Result<bool, HostError> {
    let look = |error| failed(format!("cannot look at domain `{name}`"), error);
    let deadline = Instant::now() + SETTLE_TIMEOUT;
    let (mut started, mut resumed, mut changed) = (false, false, false);
    loop {
        match state(domain).map_err(look)? {
            State::On => return Ok(changed),
            State::Off if started => {
                return Err(HostError::refused(format!("domain `{name}` stops as soon as it is started"))
                    .help(format!("see /var/log/libvirt/qemu/{name}.log, and `novella logs`")));
            }
            State::Off => {
                started = true;
                start(domain, name)?;
            }
            State::Paused(Pause::Asked | Pause::IoError) if !resumed => {
                resumed = true;
                domain.resume().map_err(|error| failed(format!("cannot resume domain `{name}`"), error))?;
            }
            State::Suspended if !resumed => {
                resumed = true;
                domain.pm_wakeup(0).map_err(|error| failed(format!("cannot wake domain `{name}`"), error))?;
            }
            // One that is shutting down is started once it is off.
            state @ (State::Stopping | State::Suspended | State::Paused(_)) => {
                if Instant::now() >= deadline {
                    return Err(HostError::refused(format!("domain `{name}` is still {state}")).transient(true));
                }
                thread::sleep(POLL);
            }
        }
        changed = true;
    }
}

/// A polite request may fail, as force comes after it; but not because nobody heard it.
fn ignorable(outcome: Result<(), Error>) -> Result<(), Error> {
    match outcome {
        Err(error) if !lost_in_transit(&error) => {
            tracing::debug!(error = %LibvirtError(error), "the guest could not be asked");
            Ok(())
        }
        outcome => outcome,
    }
}
