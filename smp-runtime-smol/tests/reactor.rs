//! The reactor of one thread: edges, wake-ups of other threads, deadlines, and what is left behind.

use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use smol::LocalExecutor;
use smol::future::{or, yield_now};
use smp_runtime_smol::reactor::{Reactor, Shifts, Source};
use smp_runtime_smol::workers::Workers;

fn reactor() -> Rc<Reactor> {
    Rc::new(Reactor::new().expect("the system has poll objects"))
}

/// Both ends of a connection; the first does not block.
fn pair() -> (TcpStream, std::net::TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    let far = std::net::TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
    let (near, _) = listener.accept().expect("it connects");
    near.set_nonblocking(true).expect("a socket");
    (TcpStream::from_std(near), far)
}

async fn readable(source: &Source<TcpStream>) {
    poll_fn(|context| {
        source.watch(context.waker());
        if source.is_readable() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

async fn writable(source: &Source<TcpStream>) {
    poll_fn(|context| {
        source.watch(context.waker());
        if source.is_writable() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Reads `wanted` bytes as a connection does: without a call that would be refused, where a read was short.
async fn read(source: &Source<TcpStream>, wanted: usize) -> Vec<u8> {
    let mut all = Vec::new();
    let mut room = vec![0; 1000];
    while all.len() < wanted {
        readable(source).await;
        match source.socket().read(&mut room) {
            Ok(0) => break,
            Ok(count) => {
                all.extend_from_slice(&room[..count]);
                if count < room.len() {
                    source.read_short();
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => source.read_refused(),
            Err(error) => panic!("{error}"),
        }
    }
    all
}

#[test]
fn what_arrived_before_the_registration_is_told() {
    let (near, mut far) = pair();
    far.write_all(b"early").expect("it is open");
    // The bytes are there.
    while near.peek(&mut [0; 8]).map_or(0, |count| count) < 5 {
        thread::yield_now();
    }
    let reactor = reactor();
    let source = reactor.register(near).expect("it can be registered");
    assert!(!source.is_readable());
    assert_eq!(reactor.block_on(read(&source, 5)).expect("it waits"), b"early");
}

#[test]
fn every_edge_is_told_however_short_the_reads() {
    let (near, mut far) = pair();
    let reactor = reactor();
    let source = reactor.register(near).expect("it can be registered");
    // One byte at a time, the next only when the last was read: each is an edge of its own.
    let (sender, taken) = mpsc::channel();
    let writer = thread::spawn(move || {
        for number in 0..500_u16 {
            far.write_all(&number.to_be_bytes()).expect("it is open");
            taken.recv().expect("the reader goes on");
        }
    });
    reactor
        .block_on(async {
            for number in 0..500_u16 {
                assert_eq!(read(&source, 2).await, number.to_be_bytes());
                sender.send(()).expect("the writer goes on");
            }
        })
        .expect("it waits");
    writer.join().expect("the writer only writes");
}

#[test]
fn a_half_closed_connection_is_read_to_its_end_and_can_still_be_written() {
    let (near, mut far) = pair();
    let reactor = reactor();
    let source = reactor.register(near).expect("it can be registered");
    far.write_all(b"last words").expect("it is open");
    far.shutdown(Shutdown::Write).expect("it is open");
    reactor
        .block_on(async {
            // The bytes and the end may have come in one event: a short read must not hide the end.
            assert_eq!(read(&source, 10).await, b"last words");
            assert_eq!(read(&source, 1).await, b"");
        })
        .expect("it waits");
    assert!(source.is_writable());
    (&mut source.socket()).write_all(b"answer").expect("this half is open");
    drop(source);
    let mut answer = String::new();
    far.read_to_string(&mut answer).expect("it is closed in order");
    assert_eq!(answer, "answer");
    assert!(reactor.is_empty());
}

#[test]
fn the_end_that_comes_between_a_short_read_and_the_wait_is_told() {
    for _ in 0..200 {
        let (near, mut far) = pair();
        let reactor = reactor();
        let source = reactor.register(near).expect("it can be registered");
        far.write_all(b"x").expect("it is open");
        let closer = thread::spawn(move || drop(far));
        let rest = reactor.block_on(async {
            assert_eq!(read(&source, 1).await, b"x");
            read(&source, 1).await
        });
        assert_eq!(rest.expect("it waits"), b"");
        closer.join().expect("it only closes");
    }
}

#[test]
fn a_full_socket_is_told_when_it_takes_more() {
    let (near, mut far) = pair();
    let reactor = reactor();
    let source = reactor.register(near).expect("it can be registered");
    let bytes: Vec<u8> = (0..8_000_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    let expected = bytes.clone();
    let (start, started) = mpsc::channel();
    let reader = thread::spawn(move || {
        // Not before the socket was full once.
        started.recv().expect("the writer goes on");
        let mut all = Vec::new();
        far.read_to_end(&mut all).expect("it is closed in order");
        all
    });
    let refusals = reactor
        .block_on(async {
            let (mut written, mut refusals) = (0, 0);
            while written < bytes.len() {
                match (&mut source.socket()).write(&bytes[written..]) {
                    Ok(count) => written += count,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        refusals += 1;
                        source.write_refused();
                        assert!(!source.is_writable());
                        let _ = start.send(());
                        writable(&source).await;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            refusals
        })
        .expect("it waits");
    assert!(refusals > 0, "8 MB were taken at once: the test proves nothing");
    drop(source);
    assert!(reader.join().expect("the reader only reads") == expected);
}

#[test]
fn a_reset_wakes_whoever_waits_to_write() {
    let (near, far) = pair();
    let reactor = reactor();
    let source = reactor.register(near).expect("it can be registered");
    loop {
        match (&mut source.socket()).write(&[0; 65_536]) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    source.write_refused();
    // Closing with unread bytes resets the connection.
    drop(far);
    reactor.block_on(writable(&source)).expect("it waits");
    assert!((&mut source.socket()).write(&[0]).is_err());
}

#[test]
fn no_ring_is_lost_whenever_it_comes() {
    const RINGS: usize = 20_000;
    let reactor = reactor();
    let sent = Arc::new(AtomicUsize::new(0));
    let seen = Arc::new(AtomicUsize::new(0));
    let ringer = thread::spawn({
        let (alarm, sent, seen) = (Arc::clone(reactor.alarm()), Arc::clone(&sent), Arc::clone(&seen));
        move || {
            for number in 1..=RINGS {
                sent.store(number, Ordering::Release);
                alarm.ring();
                // Half of them come one by one, when the thread is about to sleep; a lost one would be the last.
                while number % 2 == 0 && seen.load(Ordering::Acquire) < number {
                    std::hint::spin_loop();
                    thread::yield_now();
                }
            }
        }
    });
    reactor
        .block_on(poll_fn(|_| {
            let now = sent.load(Ordering::Acquire);
            seen.store(now, Ordering::Release);
            if now == RINGS { Poll::Ready(()) } else { Poll::Pending }
        }))
        .expect("it waits");
    ringer.join().expect("the ringer only rings");
}

#[test]
fn tasks_that_other_threads_wake_run_while_the_thread_would_sleep() {
    const MESSAGES: u32 = 5000;
    let reactor = reactor();
    let (sender, receiver) = smol::channel::bounded::<u32>(1);
    let other = thread::spawn(move || {
        for number in 0..MESSAGES {
            sender.send_blocking(number).expect("the receiver is there");
        }
    });
    let executor = LocalExecutor::new();
    let task = executor.spawn(async move {
        let mut expected = 0;
        while let Ok(number) = receiver.recv().await {
            assert_eq!(number, expected);
            expected += 1;
        }
        expected
    });
    assert_eq!(reactor.block_on(executor.run(task)).expect("it waits"), MESSAGES);
    other.join().expect("the other thread only sends");
}

#[test]
fn sockets_are_heard_while_tasks_never_rest() {
    let (near, mut far) = pair();
    let reactor = reactor();
    let source = reactor.register(near).expect("it can be registered");
    let executor = LocalExecutor::new();
    executor
        .spawn(async {
            loop {
                yield_now().await;
            }
        })
        .detach();
    far.write_all(b"heard").expect("it is open");
    assert_eq!(reactor.block_on(executor.run(read(&source, 5))).expect("it waits"), b"heard");
}

#[test]
fn deadlines_expire_in_their_order() {
    let reactor = reactor();
    let start = Instant::now();
    let executor = LocalExecutor::new();
    let order = Rc::new(RefCell::new(Vec::new()));
    // Tasks run in the order in which they are woken, also when this thread comes late and wakes all at once.
    let tasks = [30, 10, 0, 20].map(|millis| {
        let (timer, order) = (reactor.timer(), Rc::clone(&order));
        executor.spawn(async move {
            let deadline = start + Duration::from_millis(millis);
            timer.at(deadline).await;
            assert!(Instant::now() >= deadline, "not before its time");
            order.borrow_mut().push(millis);
        })
    });
    let all = async {
        for task in tasks {
            task.await;
        }
    };
    reactor.block_on(executor.run(all)).expect("it waits");
    assert_eq!(*order.borrow(), [0, 10, 20, 30]);
}

#[test]
fn a_deadline_that_was_moved_or_cleared_wakes_nobody_at_its_old_time() {
    let reactor = reactor();
    let (moved, cleared, last) = (reactor.timer(), reactor.timer(), reactor.timer());
    let start = Instant::now();
    moved.set_deadline(Some(start));
    cleared.set_deadline(Some(start));
    moved.set_deadline(Some(start + Duration::from_secs(3600)));
    cleared.set_deadline(None);
    let woken = poll_fn(|context| match (moved.poll_expired(context), cleared.poll_expired(context)) {
        (Poll::Pending, Poll::Pending) => Poll::Pending,
        _ => Poll::Ready(true),
    });
    let time = async {
        last.at(start + Duration::from_millis(20)).await;
        false
    };
    assert!(!reactor.block_on(or(woken, time)).expect("it waits"));
}

#[test]
fn thousands_of_deadlines_are_cleared_by_dropping_them() {
    let reactor = reactor();
    let soon = Instant::now() + Duration::from_millis(1);
    let timers: Vec<_> = (0..10_000)
        .map(|number| {
            let timer = reactor.timer();
            timer.set_deadline(Some(soon + Duration::from_micros(number)));
            timer
        })
        .collect();
    let kept = reactor.timer();
    assert_eq!(reactor.len(), 10_001);
    drop(timers);
    assert_eq!(reactor.len(), 1);
    // Numbers are given again, without what they had.
    let heir = reactor.timer();
    let inherited = async {
        poll_fn(|context| heir.poll_expired(context)).await;
        panic!("it has no deadline");
    };
    reactor.block_on(or(inherited, kept.at(soon + Duration::from_millis(20)))).expect("it waits");
}

/// Counts how often it is woken.
#[derive(Default)]
struct Counter(AtomicUsize);

impl Wake for Counter {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_source_that_was_dropped_wakes_nobody_and_leaves_its_place() {
    let reactor = reactor();
    let (near, mut far) = pair();
    let counter = Arc::new(Counter::default());
    let dropped = reactor.register(near).expect("it can be registered");
    dropped.watch(&Waker::from(Arc::clone(&counter)));
    far.write_all(b"too late").expect("it is open");
    drop(dropped);
    assert!(reactor.is_empty());
    // The next one has its place, and hears only what is meant for it.
    let (near, mut far) = pair();
    let heir = reactor.register(near).expect("it can be registered");
    assert!(!heir.is_readable());
    far.write_all(b"for the heir").expect("it is open");
    assert_eq!(reactor.block_on(read(&heir, 12)).expect("it waits"), b"for the heir");
    assert_eq!(counter.0.load(Ordering::Relaxed), 0);
}

#[test]
fn whoever_does_not_want_to_read_is_not_woken_by_each_arrival() {
    let reactor = reactor();
    let (near, mut far) = pair();
    let source = reactor.register(near).expect("it can be registered");
    far.write_all(b"first").expect("it is open");
    reactor.block_on(readable(&source)).expect("it waits");
    let counter = Arc::new(Counter::default());
    source.watch(&Waker::from(Arc::clone(&counter)));
    let timer = reactor.timer();
    for _ in 0..10 {
        far.write_all(b"more").expect("it is open");
        reactor.block_on(timer.at(Instant::now())).expect("it waits");
    }
    assert_eq!(counter.0.load(Ordering::Relaxed), 0);
    assert_eq!(reactor.block_on(read(&source, 45)).expect("it waits").len(), 45);
}

#[test]
fn tasks_are_spread_over_threads_and_stay_there() {
    let workers = Workers::start(Some(3), None).expect("there are threads");
    let (sender, receiver) = mpsc::channel();
    for _ in 0..30 {
        let sender = sender.clone();
        workers.crew().spawn(move |_| async move {
            let thread = thread::current().id();
            for _ in 0..10 {
                yield_now().await;
                assert_eq!(thread::current().id(), thread);
            }
            sender.send(thread).expect("the test waits");
            pending::<()>().await;
        });
    }
    let mut threads: Vec<_> = (0..30).map(|_| receiver.recv().expect("30 tasks say so")).collect();
    assert_eq!(workers.crew().tasks(), [10, 10, 10]);
    threads.sort_unstable_by_key(|thread| format!("{thread:?}"));
    threads.dedup();
    assert_eq!(threads.len(), 3);
    workers.stop();
}

#[test]
fn stopping_drops_what_is_not_finished_and_what_was_never_begun() {
    /// Says when it is dropped.
    struct Goodbye(mpsc::Sender<()>);
    impl Drop for Goodbye {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }
    let workers = Workers::start(Some(2), None).expect("there are threads");
    let crew = workers.crew().clone();
    let (sender, receiver) = mpsc::channel();
    for _ in 0..100 {
        let goodbye = Goodbye(sender.clone());
        crew.spawn(move |reactor| {
            let timer = reactor.timer();
            async move {
                timer.at(Instant::now() + Duration::from_secs(3600)).await;
                drop(goodbye);
            }
        });
    }
    workers.stop();
    let goodbye = Goodbye(sender);
    crew.spawn(move |_| async move { drop(goodbye) });
    assert_eq!(receiver.iter().count(), 101);
    assert_eq!(crew.tasks(), [0, 0]);
}

#[test]
fn a_waker_that_is_dropped_elsewhere_drops_no_task_there() {
    let workers = Workers::start(Some(1), None).expect("there are threads");
    let (sender, receiver) = mpsc::channel();
    let (done, finished) = mpsc::channel();
    workers.crew().spawn(move |_| {
        // Not `Send`: it must be dropped where it was made.
        let here = Rc::new(Cell::new(Some((done, thread::current().id()))));
        let polled = Cell::new(false);
        async move {
            poll_fn(|context| {
                if polled.replace(true) {
                    return Poll::Ready(());
                }
                sender.send(context.waker().clone()).expect("the test waits");
                Poll::Pending
            })
            .await;
            let (done, thread) = here.take().expect("it is taken once");
            done.send(thread == thread::current().id()).expect("the test waits");
        }
    });
    receiver.recv().expect("the task hands its waker over").wake();
    assert!(finished.recv().expect("the task goes on"));
    workers.stop();
}

#[test]
fn a_future_that_is_ready_needs_no_wait() {
    let reactor = reactor();
    assert_eq!(reactor.block_on(async { 7 }).expect("it waits"), 7);
    // A waker of the thread's own, used while it is awake.
    let mut rounds = 0;
    let future = poll_fn(|context: &mut Context<'_>| {
        rounds += 1;
        context.waker().wake_by_ref();
        if rounds == 1000 { Poll::Ready(()) } else { Poll::Pending }
    });
    reactor.block_on(pin!(future)).expect("it waits");
    assert_eq!(rounds, 1000);
}

/// Counts threads that work, and how often one of them rested.
#[derive(Default)]
struct Book {
    working: AtomicUsize,
    rests: AtomicUsize,
}

impl Shifts for Book {
    fn begin(&self) {
        self.working.fetch_add(1, Ordering::SeqCst);
    }

    fn rest(&self) {
        assert_ne!(self.working.fetch_sub(1, Ordering::SeqCst), 0, "who rests has worked");
        self.rests.fetch_add(1, Ordering::SeqCst);
    }

    fn is_awaited(&self) -> bool {
        true
    }
}

#[test]
fn a_thread_says_when_it_works_and_when_it_rests() {
    let book = Arc::new(Book::default());
    let reactor = Reactor::new().expect("the system has poll objects").with_shifts(Some(book.clone()));
    let reactor = Rc::new(reactor);
    assert_eq!(book.working.load(Ordering::SeqCst), 0);
    let timer = reactor.timer();
    reactor
        .block_on(async {
            assert_eq!(book.working.load(Ordering::SeqCst), 1);
            // To let others run is no rest.
            for _ in 0..100 {
                yield_now().await;
            }
            assert_eq!(book.rests.load(Ordering::SeqCst), 0);
            timer.at(Instant::now() + Duration::from_millis(5)).await;
            assert_eq!(book.working.load(Ordering::SeqCst), 1);
            assert_ne!(book.rests.load(Ordering::SeqCst), 0);
        })
        .expect("it waits");
    assert_eq!(book.working.load(Ordering::SeqCst), 0);
}
