use proptest::prelude::{any, prop, prop_assert, proptest};
use vm_memory::{Bytes, GuestAddress};

use super::super::testing::{Driver, MEMORY, WRITE};
use super::*;

const ALL: u64 = F_STATS_VQ | F_DEFLATE_ON_OOM | F_PAGE_REPORTING;
/// The fourth queue, where drivers report.
const REPORT: usize = 3;

fn balloon() -> (Arc<Control>, Balloon, Driver) {
    let control = Control::new().unwrap();
    let mut balloon = Balloon::new(control.clone());
    let driver = Driver::new(&balloon);
    balloon.activate(ALL);
    (control, balloon, driver)
}

/// Fills pages 1,024 to 1,039 with ones.
fn fill(driver: &Driver) {
    driver.memory.write_slice(&[1; 16 * PAGE as usize], GuestAddress(1024 * PAGE)).unwrap();
}

/// Which of these pages, counted from 1,024, read as zeros.
fn empty(driver: &Driver) -> Vec<u64> {
    let mut page = [0; PAGE as usize];
    let mut is_empty = |number: &u64| {
        driver.memory.read_slice(&mut page, GuestAddress((1024 + number) * PAGE)).unwrap();
        page.iter().all(|byte| *byte == 0)
    };
    (0..16).filter(|number| is_empty(number)).collect()
}

fn numbers(pages: &[u32]) -> Vec<u8> {
    pages.iter().flat_map(|page| page.to_le_bytes()).collect()
}

#[test]
fn pages_that_go_into_the_balloon_are_released_in_whatever_order_they_come() {
    let (_, mut balloon, mut driver) = balloon();
    fill(&driver);
    let head = driver.send(INFLATE, &[&numbers(&[1027, 1025, 1026]), &numbers(&[1035, 1025, 1030])], &[]);
    driver.kick(&mut balloon, INFLATE).unwrap();
    assert_eq!(driver.used(INFLATE), Some((head, 0)));
    assert!(driver.interrupted());
    assert_eq!(empty(&driver), [1, 2, 3, 6, 11]);
}

#[test]
fn page_numbers_outside_memory_and_half_numbers_do_nothing() {
    let (_, mut balloon, mut driver) = balloon();
    fill(&driver);
    let beyond = u32::try_from(MEMORY / PAGE).unwrap();
    let mut request = numbers(&[u32::MAX, beyond, u32::MAX - 1, 0x8000_0000]);
    request.extend([0, 4]);
    driver.send(INFLATE, &[&request], &[]);
    driver.kick(&mut balloon, INFLATE).unwrap();
    assert!(driver.used(INFLATE).is_some());
    assert!(empty(&driver).is_empty());
}

#[test]
fn leaving_the_balloon_changes_no_memory() {
    let (_, mut balloon, mut driver) = balloon();
    fill(&driver);
    driver.send(DEFLATE, &[&numbers(&[1024, 1025])], &[]);
    driver.kick(&mut balloon, DEFLATE).unwrap();
    assert!(driver.used(DEFLATE).is_some() && empty(&driver).is_empty());
}

#[test]
fn reported_ranges_are_released_and_counted_wherever_the_driver_has_the_queue() {
    for queue in [REPORT, REPORT + 1] {
        let (control, mut balloon, mut driver) = balloon();
        fill(&driver);
        let range = |page: u64, pages: u64, flags| ((1024 + page) * PAGE, u32::try_from(pages * PAGE).unwrap(), flags);
        driver.send_raw(queue, &[range(2, 3, WRITE), range(9, 1, WRITE)]);
        driver.kick(&mut balloon, queue).unwrap();
        assert!(driver.used(queue).is_some());
        assert_eq!((empty(&driver), control.reported()), (vec![2, 3, 4, 9], 4 * PAGE));
        // A report is of buffers that the device may write.
        driver.send_raw(queue, &[range(0, 1, 0), ((1024 + 15) * PAGE + 1, 4095, WRITE), (MEMORY - 4096, 8192, WRITE)]);
        driver.kick(&mut balloon, queue).unwrap();
        assert_eq!((empty(&driver), control.reported()), (vec![2, 3, 4, 9], 4 * PAGE));
    }
}

#[test]
fn one_report_never_releases_more_than_there_is_memory() {
    let (control, mut balloon, mut driver) = balloon();
    let half = u32::try_from(MEMORY / 2).unwrap();
    driver.send_raw(REPORT, &[(MEMORY / 2, half, WRITE); 9]);
    driver.kick(&mut balloon, REPORT).unwrap();
    assert_eq!(control.reported(), MEMORY);
}

#[test]
fn a_driver_that_did_not_agree_to_statistics_reports_on_the_third_queue_and_one_without_reports_on_none() {
    for (features, released) in [(F_PAGE_REPORTING, PAGE), (F_STATS_VQ, 0), (0, 0)] {
        let (control, mut balloon, mut driver) = balloon();
        balloon.activate(features);
        driver.send_raw(STATS, &[(1024 * PAGE, 4096, WRITE)]);
        driver.kick(&mut balloon, STATS).unwrap();
        assert_eq!(control.reported(), released);
    }
}

#[test]
fn a_new_size_reaches_the_driver_by_an_interrupt_and_its_answer_is_told() {
    let (control, mut balloon, mut driver) = balloon();
    let config = balloon.config();
    control.resize((5 << 20) + 5);
    assert_eq!(control.target(), 5 << 20);
    balloon.source_ready(0, PollFlags::IN, &mut driver.io).unwrap();
    assert_eq!((driver.io.interrupt.status(), driver.interrupted()), (2, true));
    let mut pages = [0; 4];
    config.lock().unwrap().read(0, &mut pages);
    assert_eq!(u32::from_le_bytes(pages), 1280);
    config.lock().unwrap().write(4, &700u32.to_le_bytes());
    assert_eq!(control.actual(), 700 * PAGE);
    for (offset, data) in [(0, &[9; 4][..]), (8, &[9; 4]), (4, &[9; 2]), (u64::MAX, &[9; 4])] {
        config.lock().unwrap().write(offset, data);
    }
    assert_eq!((control.target(), control.actual()), (5 << 20, 700 * PAGE), "the driver writes one field only");
    // Nothing new: no interrupt.
    driver.io.interrupt.acknowledge(3);
    balloon.source_ready(0, PollFlags::IN, &mut driver.io).unwrap();
    assert_eq!(driver.io.interrupt.status(), 0);
}

#[test]
fn statistics_are_read_and_their_buffer_goes_back_when_newer_ones_are_wanted() {
    let (control, mut balloon, mut driver) = balloon();
    let statistics = |available: u64| {
        let entries = [(4u16, 1u64), (S_AVAIL, available), (99, 2)];
        entries.map(|(tag, value)| [&tag.to_le_bytes()[..], &value.to_le_bytes()].concat()).concat()
    };
    assert_eq!(control.available(), None);
    let first = driver.send(STATS, &[&statistics(1000)], &[]);
    driver.kick(&mut balloon, STATS).unwrap();
    assert_eq!(driver.used(STATS), None, "kept until it is needed");
    assert_eq!(control.available(), Some(1000));
    balloon.source_ready(0, PollFlags::IN, &mut driver.io).unwrap();
    assert_eq!(driver.used(STATS), Some((first, 0)));
    driver.send(STATS, &[&statistics(2000)[..29]], &[]);
    driver.kick(&mut balloon, STATS).unwrap();
    assert_eq!(control.available(), Some(2000));
    // The buffer that is there came before this question.
    balloon.source_ready(0, PollFlags::IN, &mut driver.io).unwrap();
    driver.send(STATS, &[b"short"], &[]);
    driver.kick(&mut balloon, STATS).unwrap();
    assert_eq!(control.available(), None);
}

#[test]
fn the_state_round_trips_and_a_reset_keeps_only_what_the_host_wants() {
    let (control, mut balloon, _) = balloon();
    control.resize(8 << 20);
    balloon.config().lock().unwrap().write(4, &77u32.to_le_bytes());
    let text = serde_json::to_string(&balloon.save()).unwrap();
    let (other_control, mut other, _) = self::balloon();
    other.restore(serde_json::from_str(&text).unwrap()).unwrap();
    assert_eq!((other_control.target(), other_control.actual()), (8 << 20, 77 * PAGE));
    assert_eq!(other.save(), balloon.save());
    assert!(other.restore(DeviceState::Rng).is_err());
    balloon.reset();
    assert_eq!((control.target(), control.actual()), (8 << 20, 0));
}

proptest! {
    #[test]
    fn no_chain_harms_the_device(
        queue in 0usize..5,
        chain in prop::collection::vec((0..MEMORY * 2, any::<u32>(), 0u16..8), 1..8),
    ) {
        let (_, mut balloon, mut driver) = balloon();
        driver.send_raw(queue, &chain);
        let _ = driver.kick(&mut balloon, queue);
        let _ = balloon.source_ready(0, PollFlags::IN, &mut driver.io);
        // The guest may have given its rings away: a fresh driver proves that the device lives.
        let (_, _, mut driver) = self::balloon();
        fill(&driver);
        driver.send(INFLATE, &[&numbers(&[1030])], &[]);
        driver.kick(&mut balloon, INFLATE).unwrap();
        prop_assert!(driver.used(INFLATE).is_some() && empty(&driver) == [6]);
    }
}
