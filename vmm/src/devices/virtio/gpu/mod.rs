//! Graphics device (virtio 1.2 §5.7), two-dimensional: one screen and a pointer.
//!
//! A resource's pixels lie in a memfd that display clients map. The guest copies into it
//! (`TRANSFER_TO_HOST_2D`), says which resource the screen is (`SET_SCANOUT`), and when it is to be looked
//! at (`RESOURCE_FLUSH`): only then does the display hear of it, so that a flip between two resources
//! costs no copy and shows nothing unfinished.

mod commands;
mod edid;
mod pixels;
mod resource;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::event::PollFlags;
use serde::{Deserialize, Serialize};
use virtio_queue::Reader;
use vm_memory::ByteValued;
use yunju_protocol::display::{MAX_CURSOR, Rect};

use self::commands::{Header, Refusal};
use self::resource::{Backing, Format, Resource};
use super::{Chain, ConfigSpace, Device, DeviceState, Fault, Io, Kind, StateError, read_config};
use crate::display::{Buffer, Cursor, Display};
use crate::event::borrow;
use crate::memory::GuestMemory;

/// Most resources at once: each takes a descriptor of this process, and a desktop has some ten.
const MAX_RESOURCES: usize = 256;
/// Most bytes of all resources.
const MAX_PIXELS: usize = 256 << 20;
/// Most pieces of guest memory behind all resources: [`MAX_PIXELS`] in single pages, twice.
const MAX_PIECES: usize = 1 << 17;

const CONTROL_QUEUE: usize = 0;

const F_EDID: u64 = 1 << 1;

/// Configuration event: the display information is another (§5.7.4).
const EVENT_DISPLAY: u32 = 1;

/// A graphics device.
pub struct Gpu {
    display: Arc<Display>,
    config: Arc<Mutex<Config>>,
    resources: BTreeMap<u32, Resource>,
    /// What the guest wants to be seen.
    scanout: Option<Scanout>,
    /// What the display was told of last.
    on_display: Option<Scanout>,
    cursor: Cursor,
}

/// The part of a resource that is the screen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Scanout {
    resource: u32,
    area: Rect,
}

/// The graphics device's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    events: u32,
    resources: Vec<resource::State>,
    /// Resource and area.
    scanout: Option<(u32, Rect)>,
    cursor: Cursor,
}

/// The configuration space (§5.7.4): pending events; one screen; no capability sets.
#[derive(Default)]
struct Config {
    events: u32,
}

/// What a command that was carried out is answered with.
struct Answer {
    kind: u32,
    body: Vec<u8>,
}

impl Answer {
    const DONE: Self = Self { kind: commands::OK_NODATA, body: Vec::new() };
}

impl Gpu {
    /// A graphics device whose screen is `display`.
    pub fn new(display: Arc<Display>) -> Self {
        Self {
            display,
            config: Arc::default(),
            resources: BTreeMap::new(),
            scanout: None,
            on_display: None,
            cursor: Cursor::default(),
        }
    }

    /// Carries one command out and returns how many bytes of the chain were written.
    fn control(&mut self, chain: &mut Chain<'_>, memory: &GuestMemory) -> io::Result<u32> {
        let header = chain.reader.read_obj::<Header>().ok();
        let outcome = match header {
            Some(header) => self.execute(header.kind, &mut chain.reader, memory),
            None => Err(Refusal::Unspecified),
        };
        let room = chain.writer.available_bytes();
        let outcome = outcome.and_then(|answer| {
            let fits = room >= size_of::<Header>() + answer.body.len();
            if fits { Ok(answer) } else { Err(Refusal::Unspecified) }
        });
        let Answer { kind, body } = outcome.unwrap_or_else(|refusal| Answer { kind: refusal as u32, body: Vec::new() });
        if room < size_of::<Header>() {
            // Without room for a header there is no way to answer.
            return Ok(0);
        }
        let mut answer = Header { kind, ..Header::default() };
        // Each command is finished before the next is taken: its fence has passed when it is answered.
        if let Some(header) = header.filter(|header| header.flags & commands::FLAG_FENCE != 0) {
            answer = Header { flags: commands::FLAG_FENCE, fence: header.fence, context: header.context, ..answer };
        }
        chain.writer.write_all(answer.as_slice())?;
        chain.writer.write_all(&body)?;
        Ok((size_of::<Header>() + body.len()) as u32)
    }

    fn execute(&mut self, kind: u32, reader: &mut Reader<'_>, memory: &GuestMemory) -> Result<Answer, Refusal> {
        match kind {
            commands::GET_DISPLAY_INFO => return Ok(self.display_info()),
            commands::GET_EDID => return self.edid(&read(reader)?),
            commands::RESOURCE_CREATE_2D => self.create(&read(reader)?),
            commands::RESOURCE_UNREF => self.remove(read::<commands::Named>(reader)?.resource),
            commands::RESOURCE_ATTACH_BACKING => self.attach(&read(reader)?, reader, memory),
            commands::RESOURCE_DETACH_BACKING => {
                self.resource(read::<commands::Named>(reader)?.resource).map(|resource| resource.backing = None)
            }
            commands::TRANSFER_TO_HOST_2D => {
                let transfer: commands::Transfer = read(reader)?;
                let resource = self.resource(transfer.resource)?;
                let area = transfer.area.within(resource.width, resource.height)?;
                resource.transfer(area, transfer.offset, memory)
            }
            commands::SET_SCANOUT => self.set_scanout(&read(reader)?),
            commands::RESOURCE_FLUSH => self.flush(&read(reader)?),
            _ => Err(Refusal::Unspecified),
        }?;
        Ok(Answer::DONE)
    }

    fn resource(&mut self, id: u32) -> Result<&mut Resource, Refusal> {
        self.resources.get_mut(&id).ok_or(Refusal::InvalidResource)
    }

    fn display_info(&self) -> Answer {
        let (width, height) = self.display.preferred();
        let mut body = vec![0; commands::MAX_SCANOUTS * 24];
        // x, y, width, height, enabled, flags of the first screen.
        for (place, value) in body.as_chunks_mut::<4>().0.iter_mut().zip([0, 0, width, height, 1, 0]) {
            *place = value.to_le_bytes();
        }
        Answer { kind: commands::OK_DISPLAY_INFO, body }
    }

    fn edid(&self, command: &commands::GetEdid) -> Result<Answer, Refusal> {
        if command.scanout != 0 {
            return Err(Refusal::InvalidScanout);
        }
        let (width, height) = self.display.preferred();
        let edid = edid::edid(width, height);
        let mut body = (edid.len() as u64).to_le_bytes().to_vec();
        body.extend(edid);
        body.resize(8 + commands::EDID_ROOM, 0);
        Ok(Answer { kind: commands::OK_EDID, body })
    }

    fn create(&mut self, command: &commands::Create) -> Result<(), Refusal> {
        if command.resource == 0 || self.resources.contains_key(&command.resource) {
            return Err(Refusal::InvalidResource);
        }
        let format = Format::from_number(command.format)?;
        let size = resource::size(command.width, command.height).ok_or(Refusal::InvalidParameter)?;
        let used: usize = self.resources.values().map(|resource| resource.pixels.bytes().len()).sum();
        if self.resources.len() >= MAX_RESOURCES || used + size > MAX_PIXELS {
            return Err(Refusal::OutOfMemory);
        }
        let resource = Resource::new(format, command.width, command.height).map_err(|_| Refusal::OutOfMemory)?;
        self.resources.insert(command.resource, resource);
        Ok(())
    }

    fn remove(&mut self, id: u32) -> Result<(), Refusal> {
        let resource = self.resources.remove(&id).ok_or(Refusal::InvalidResource)?;
        self.scanout = self.scanout.filter(|scanout| scanout.resource != id);
        if self.on_display.is_some_and(|shown| shown.resource == id) {
            // The guest has turned to another resource and not flushed it, or to none.
            self.on_display = None;
            match self.scanout {
                Some(scanout) => self.show(scanout, Rect::of_size(scanout.area.width, scanout.area.height)),
                None => self.display.blank(),
            }
        }
        if let Some(buffer) = resource.buffer {
            self.display.remove_buffer(buffer);
        }
        Ok(())
    }

    fn attach(
        &mut self,
        command: &commands::AttachBacking,
        reader: &mut Reader<'_>,
        memory: &GuestMemory,
    ) -> Result<(), Refusal> {
        let used: usize = self.resources.values().flat_map(|resource| &resource.backing).map(Backing::pieces).sum();
        let resource = self.resource(command.resource)?;
        if resource.backing.is_some() {
            return Err(Refusal::Unspecified);
        }
        if command.entries as usize > MAX_PIECES.saturating_sub(used) {
            return Err(Refusal::OutOfMemory);
        }
        let mut backing = Backing::default();
        for _ in 0..command.entries {
            backing.add(read(reader)?, memory)?;
        }
        resource.backing = Some(backing);
        Ok(())
    }

    fn set_scanout(&mut self, command: &commands::SetScanout) -> Result<(), Refusal> {
        if command.scanout != 0 {
            return Err(Refusal::InvalidScanout);
        }
        if command.resource == 0 {
            (self.scanout, self.on_display) = (None, None);
            self.display.blank();
            return Ok(());
        }
        let resource = self.resource(command.resource)?;
        let area = command.area.within(resource.width, resource.height)?;
        if area.is_empty() {
            return Err(Refusal::InvalidParameter);
        }
        self.scanout = Some(Scanout { resource: command.resource, area });
        Ok(())
    }

    fn flush(&mut self, command: &commands::Flush) -> Result<(), Refusal> {
        let resource = self.resource(command.resource)?;
        let area = command.area.within(resource.width, resource.height)?;
        let Some(scanout) = self.scanout.filter(|scanout| scanout.resource == command.resource) else {
            return Ok(());
        };
        let whole = Rect::of_size(scanout.area.width, scanout.area.height);
        let damage = if self.on_display == Some(scanout) {
            let seen = area.intersection(&scanout.area);
            Rect { x: seen.x - scanout.area.x, y: seen.y - scanout.area.y, ..seen }
        } else {
            // Another resource or area: no rectangle of the guest's says how it differs from the last.
            whole
        };
        if !damage.is_empty() {
            self.show(scanout, damage);
        }
        Ok(())
    }

    fn show(&mut self, scanout: Scanout, damage: Rect) {
        let Some(resource) = self.resources.get_mut(&scanout.resource) else {
            return;
        };
        let (width, height, stride) = (resource.width, resource.height, resource.stride());
        let display = &self.display;
        let buffer = *resource.buffer.get_or_insert_with(|| {
            display.add_buffer(Buffer { width, height, stride, pixels: resource.pixels.file().clone() })
        });
        self.display.frame(buffer, scanout.area, damage);
        self.on_display = Some(scanout);
    }

    /// Takes a command of the cursor queue. Where the pointer is, people know better than the guest: only
    /// its picture counts.
    fn point(&mut self, reader: &mut Reader<'_>) -> Result<(), Refusal> {
        if read::<Header>(reader)?.kind != commands::UPDATE_CURSOR {
            return Err(Refusal::Unspecified);
        }
        let command: commands::UpdateCursor = read(reader)?;
        let cursor = if command.resource == 0 {
            Cursor::default()
        } else {
            let resource = self.resource(command.resource)?;
            let (width, height) = (resource.width, resource.height);
            if width.max(height) > MAX_CURSOR {
                return Err(Refusal::InvalidParameter);
            }
            let (hot_x, hot_y) = (command.hot_x.min(width - 1), command.hot_y.min(height - 1));
            // The fourth byte is alpha even where the format says it is unused, as Linux does.
            Cursor { width, height, hot_x, hot_y, pixels: resource.pixels.bytes().to_vec() }
        };
        self.cursor = cursor.clone();
        self.display.cursor(cursor);
        Ok(())
    }

    fn space(&self) -> MutexGuard<'_, Config> {
        // No change of one number is left half done.
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets all resources and what is seen of them.
    fn clear(&mut self) {
        self.display.blank();
        self.display.cursor(Cursor::default());
        for resource in std::mem::take(&mut self.resources).into_values() {
            if let Some(buffer) = resource.buffer {
                self.display.remove_buffer(buffer);
            }
        }
        (self.scanout, self.on_display, self.cursor) = (None, None, Cursor::default());
    }
}

fn read<T: ByteValued>(reader: &mut Reader<'_>) -> Result<T, Refusal> {
    reader.read_obj().map_err(|_| Refusal::Unspecified)
}

impl Device for Gpu {
    fn kind(&self) -> Kind {
        Kind::Gpu
    }

    fn queue_sizes(&self) -> &'static [u16] {
        &[256, 16]
    }

    fn features(&self) -> u64 {
        F_EDID
    }

    fn config(&self) -> Arc<Mutex<dyn ConfigSpace>> {
        self.config.clone()
    }

    fn queue_ready(&mut self, index: usize, io: &mut Io) -> Result<(), Fault> {
        let queue = &mut io.queues[index];
        let memory = queue.memory().clone();
        while let Some(mut chain) = queue.pop(&memory)? {
            let written = if index == CONTROL_QUEUE {
                self.control(&mut chain, &memory)?
            } else {
                // The cursor queue has no answers: what makes no sense changes nothing.
                let _ = self.point(&mut chain.reader);
                0
            };
            queue.push(chain.head, written)?;
            queue.signal()?;
        }
        Ok(())
    }

    fn sources<'a>(&'a self, interest: &mut Vec<(BorrowedFd<'a>, PollFlags)>) {
        interest.push((borrow(self.display.resized()), PollFlags::IN));
    }

    fn source_ready(&mut self, _index: usize, _events: PollFlags, io: &mut Io) -> Result<(), Fault> {
        // Reading resets the counter; it is non-blocking, and a spurious wake-up does no harm.
        let _ = self.display.resized().read();
        self.space().events |= EVENT_DISPLAY;
        Ok(io.interrupt.config_changed()?)
    }

    fn reset(&mut self) {
        self.clear();
        *self.space() = Config::default();
    }

    fn save(&self) -> DeviceState {
        DeviceState::Gpu(State {
            events: self.space().events,
            resources: self.resources.iter().map(|(id, resource)| resource.save(*id)).collect(),
            scanout: self.scanout.map(|scanout| (scanout.resource, scanout.area)),
            cursor: self.cursor.clone(),
        })
    }

    fn restore(&mut self, state: DeviceState) -> Result<(), StateError> {
        let DeviceState::Gpu(state) = state else {
            return Err(StateError("it is no graphics device's".into()));
        };
        self.clear();
        self.space().events = state.events;
        for saved in &state.resources {
            let resource = Resource::restore(saved)
                .map_err(|error| StateError(format!("resource {} of the graphics device: {error}", saved.id)))?;
            self.resources.insert(saved.id, resource);
        }
        self.cursor = state.cursor.clone();
        self.display.cursor(state.cursor);
        if let Some((id, area)) = state.scanout {
            let Some(resource) = self.resources.get(&id) else {
                return Err(StateError(format!("the screen is resource {id} of the graphics device, which is none")));
            };
            if area.intersection(&Rect::of_size(resource.width, resource.height)) != area {
                return Err(StateError(format!("the screen is {area:?} of the smaller resource {id}")));
            }
            self.scanout = Some(Scanout { resource: id, area });
            self.show(Scanout { resource: id, area }, Rect::of_size(area.width, area.height));
        }
        Ok(())
    }
}

impl ConfigSpace for Config {
    fn read(&self, offset: u64, data: &mut [u8]) {
        let mut space = [0; 16];
        space[0..4].copy_from_slice(&self.events.to_le_bytes());
        space[8] = 1; // num_scanouts
        read_config(&space, offset, data);
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        // events_clear
        if let (4, Ok(bits)) = (offset, <[u8; 4]>::try_from(data)) {
            self.events &= !u32::from_le_bytes(bits);
        }
    }
}

impl Drop for Gpu {
    fn drop(&mut self) {
        self.clear();
    }
}
