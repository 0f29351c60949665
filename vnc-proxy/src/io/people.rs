//! Who is at the screen together: their names, where they point, whether they type. Each page is told of the others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::watch;
use yunju_protocol::page::{ToPage, Whereabouts};
use yunju_protocol::seat::frame;

/// All pages that are there.
#[derive(Debug)]
pub struct People {
    present: Mutex<Present>,
    news: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Present {
    /// Pages so far.
    count: u64,
    pages: BTreeMap<u16, Person>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Person {
    /// Which page of all that ever were: numbers are used again.
    arrival: u64,
    name: Arc<str>,
    is: Whereabouts,
}

/// A page's place among them, until it is dropped.
#[derive(Debug)]
pub struct Place<'a> {
    people: &'a People,
    number: u16,
}

/// What a page has been told of the others.
#[derive(Debug, Default)]
pub struct Told(BTreeMap<u16, Person>);

impl Default for People {
    fn default() -> Self {
        Self { present: Mutex::default(), news: watch::Sender::new(()) }
    }
}

impl People {
    /// A page comes. It has the smallest number that is free.
    pub fn enter(&self, name: &str) -> Place<'_> {
        let mut present = self.present();
        present.count += 1;
        let arrival = present.count;
        // There are never as many pages as numbers: `MAX_PAGES`.
        let number = (0..).find(|number| !present.pages.contains_key(number)).unwrap_or(u16::MAX);
        present.pages.insert(number, Person { arrival, name: name.into(), is: Whereabouts::default() });
        drop(present);
        self.news.send_replace(());
        Place { people: self, number }
    }

    fn present(&self) -> MutexGuard<'_, Present> {
        self.present.lock().expect("no holder of the lock of people panics")
    }
}

impl Place<'_> {
    /// Where this page's person is now.
    pub fn is(&self, now: Whereabouts) {
        let mut present = self.people.present();
        let Some(person) = present.pages.get_mut(&self.number).filter(|person| person.is != now) else { return };
        person.is = now;
        drop(present);
        self.people.news.send_replace(());
    }

    /// Marked as changed whenever somebody comes, moves or goes.
    pub fn news(&self) -> watch::Receiver<()> {
        self.people.news.subscribe()
    }

    /// Frames of what is different with the others from what was told.
    pub fn differences(&self, told: &mut Told) -> Vec<Vec<u8>> {
        let mut now = self.people.present().pages.clone();
        now.remove(&self.number);
        let before = std::mem::replace(&mut told.0, now);
        let mut frames = Vec::new();
        let same = |number: &u16, person: &Person, of: &BTreeMap<u16, Person>| {
            of.get(number).is_some_and(|other| other.arrival == person.arrival)
        };
        for (id, _) in before.iter().filter(|(number, person)| !same(number, person, &told.0)) {
            frames.push(frame(&ToPage::Gone { id: *id }, b""));
        }
        for (id, person) in &told.0 {
            let known = before.get(id).filter(|other| other.arrival == person.arrival);
            if known.is_none() {
                frames.push(frame(&ToPage::Person { id: *id, name: person.name.to_string() }, b""));
            }
            if known.map_or(Whereabouts::default(), |other| other.is) != person.is {
                frames.push(frame(&ToPage::There { id: *id, is: person.is }, b""));
            }
        }
        frames
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.people.present().pages.remove(&self.number);
        self.people.news.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use yunju_protocol::seat::parse;

    use super::*;

    fn heard(place: &Place<'_>, told: &mut Told) -> Vec<ToPage> {
        place.differences(told).iter().map(|bytes| parse(bytes).unwrap().unwrap().0).collect()
    }

    #[test]
    fn each_is_told_of_the_others_and_only_what_is_new() {
        let people = People::default();
        let (ann, mut told) = (people.enter("Ann"), Told::default());
        assert_eq!(heard(&ann, &mut told), [], "nobody else is there");
        let bob = people.enter("Bob");
        let is = Whereabouts { at: Some([3, 4]), types: false };
        ann.is(Whereabouts { at: Some([9, 9]), types: true });
        bob.is(Whereabouts { at: Some([1, 1]), types: true });
        bob.is(is);
        let name = "Bob".to_owned();
        assert_eq!(heard(&ann, &mut told), [ToPage::Person { id: 1, name }, ToPage::There { id: 1, is }]);
        assert_eq!(heard(&ann, &mut told), []);
        drop(bob);
        let _cy = people.enter("Cy");
        let name = "Cy".to_owned();
        assert_eq!(heard(&ann, &mut told), [ToPage::Gone { id: 1 }, ToPage::Person { id: 1, name }]);
    }

    #[test]
    fn only_what_changes_is_news() {
        let people = People::default();
        let (ann, bob) = (people.enter(""), people.enter(""));
        let mut news = ann.news();
        bob.is(Whereabouts::default());
        assert!(!news.has_changed().unwrap());
        bob.is(Whereabouts { types: true, at: None });
        assert!(news.has_changed().unwrap());
        news.mark_unchanged();
        drop(bob);
        assert!(news.has_changed().unwrap());
    }
}
