//! What people do, on its way to the guest.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use vmm_sys_util::eventfd::EventFd;

use super::{EV_ABS, EV_KEY, InputEvent, REL_HWHEEL, REL_HWHEEL_HI_RES, REL_WHEEL_HI_RES};

/// Most events that wait for a guest. Beyond it all is dropped but releases, of which there are at
/// most as many as keys.
pub const LIMIT: usize = 1024;

/// Units of a high-resolution wheel in one click (`REL_WHEEL_HI_RES`).
pub const CLICK: i32 = 120;

/// Events of one device that wait for the guest to take them.
pub struct Events {
    queue: Mutex<Queue>,
    arrived: EventFd,
}

#[derive(Default)]
struct Queue {
    /// Whether a driver is there. What happens before is not for it.
    open: bool,
    events: VecDeque<InputEvent>,
    /// The keys whose press was let in and whose release was not yet.
    down: BTreeSet<u16>,
    /// Events of the newest group if it is nothing but a position, else 0.
    position: usize,
}

impl Events {
    /// No events, and no driver to take any.
    pub fn new() -> io::Result<Self> {
        Ok(Self { queue: Mutex::default(), arrived: EventFd::new(libc::EFD_NONBLOCK | libc::EFD_CLOEXEC)? })
    }

    /// Adds what happened at one time.
    ///
    /// When the guest does not keep up, the whole group is dropped, except that a release follows
    /// every press that was let in: no key sticks. A position replaces one that still waits.
    pub fn push(&self, group: &[InputEvent]) {
        let mut queue = self.queue();
        if !queue.open {
            return;
        }
        let position = !group.is_empty() && group.iter().all(|event| event.kind == EV_ABS);
        if position && queue.position > 0 && queue.events.len() >= queue.position {
            let rest = queue.events.len() - queue.position;
            queue.events.truncate(rest);
            queue.position = 0;
        }
        let room = queue.events.len() + group.len() < LIMIT;
        let kept: Vec<InputEvent> = group
            .iter()
            .filter(|event| match (event.kind, event.value) {
                (EV_KEY, 0) => queue.down.remove(&event.code),
                (EV_KEY, _) => room && queue.down.insert(event.code),
                _ => room,
            })
            .copied()
            .collect();
        if kept.is_empty() {
            return;
        }
        queue.position = if position { kept.len() + 1 } else { 0 };
        queue.events.extend(kept);
        queue.events.push_back(InputEvent::SYN);
        drop(queue);
        // A full counter has already woken the device.
        let _ = self.arrived.write(1);
    }

    /// Signalled when events arrive.
    pub fn arrived(&self) -> &EventFd {
        &self.arrived
    }

    /// A driver has come.
    pub(crate) fn open(&self) {
        self.queue().open = true;
    }

    /// The driver has gone, and with it what it did not take.
    pub(crate) fn close(&self) {
        *self.queue() = Queue::default();
    }

    /// Whether there are events to take.
    pub(crate) fn waiting(&self) -> bool {
        !self.queue().events.is_empty()
    }

    /// The oldest event.
    pub(crate) fn take(&self) -> Option<InputEvent> {
        self.queue().events.pop_front()
    }

    /// The keys that the guest believes to be down, or will when it has taken all presses.
    pub(crate) fn down(&self) -> Vec<u16> {
        let queue = self.queue();
        let waiting = queue.events.iter().filter(|event| event.kind == EV_KEY && event.value == 0);
        let down: BTreeSet<u16> = queue.down.iter().copied().chain(waiting.map(|event| event.code)).collect();
        down.into_iter().collect()
    }

    /// Begins anew with the release of `keys`, for a restored machine.
    pub(crate) fn let_go(&self, keys: &[u16]) {
        let keys: BTreeSet<u16> = keys.iter().copied().collect();
        let mut queue = self.queue();
        let open = queue.open;
        *queue = Queue { open, ..Queue::default() };
        if !keys.is_empty() {
            queue.events.extend(keys.into_iter().map(|code| InputEvent::key(code, false)));
            queue.events.push_back(InputEvent::SYN);
        }
        drop(queue);
        // A full counter has already woken the device.
        let _ = self.arrived.write(1);
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // No change is left half done by a panic: none of them can panic in the middle.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The events of a wheel that turns by `part` of a click in units of [`CLICK`], in both resolutions that guests
/// understand. `rest` is what makes no whole click yet.
pub fn wheel(axis: u16, part: i32, rest: &mut i32) -> impl Iterator<Item = InputEvent> + use<> {
    let fine = if axis == REL_HWHEEL { REL_HWHEEL_HI_RES } else { REL_WHEEL_HI_RES };
    *rest += part;
    let clicks = *rest / CLICK;
    *rest %= CLICK;
    let events = [InputEvent::relative(axis, clicks), InputEvent::relative(fine, part)];
    events.into_iter().filter(|event| event.value != 0)
}
