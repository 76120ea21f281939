// SPDX-License-Identifier: Apache-2.0
//! What tests run inside of a container: `probe WHAT [ARG…]` tries one thing and prints `WHAT: ok VALUE` or `WHAT: ERRNO`.
#![allow(unsafe_code)]

use std::ffi::CString;

use nix::errno::Errno;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    for (what, result) in probe(&words) {
        match result {
            Ok(value) => println!("{what}: ok {value}"),
            Err(errno) => println!("{what}: {errno:?}"),
        }
    }
}

type Answer = (String, nix::Result<String>);

fn number(text: &str) -> i64 {
    text.strip_prefix("0x")
        .map_or_else(|| text.parse(), |hex| i64::from_str_radix(hex, 16))
        .unwrap_or_else(|_| panic!("{text:?} is no number"))
}

/// A raw system call with up to three numbers.
fn call(nr: i64, args: &[i64]) -> nix::Result<String> {
    let arg = |at: usize| args.get(at).copied().unwrap_or_default();
    // SAFETY: the tests pass numbers that the kernel refuses or that change this process alone.
    let result = unsafe { libc::syscall(nr, arg(0), arg(1), arg(2), arg(3), arg(4), arg(5)) };
    Errno::result(result).map(|value| value.to_string())
}

fn probe(words: &[&str]) -> Vec<Answer> {
    let answer = |result| vec![(words.join(" "), result)];
    match words {
        ["fds"] => answer(Ok(open_fds())),
        ["syscall", nr, rest @ ..] => answer(call(number(nr), &rest.iter().map(|arg| number(arg)).collect::<Vec<_>>())),
        ["socket", family] => answer(call(libc::SYS_socket, &[number(family), libc::SOCK_DGRAM.into(), 0])),
        ["tiocsti"] => answer(push_to_terminal(0x5412)),
        ["tiocsti-dirty"] => answer(push_to_terminal(0x1_0000_5412)),
        ["tioclinux"] => answer(push_to_terminal(0x541c)),
        ["open-write", path] => answer(open(path, libc::O_WRONLY)),
        ["open-trunc", path] => answer(open(path, libc::O_WRONLY | libc::O_TRUNC)),
        ["open-read", path] => answer(open(path, libc::O_RDONLY)),
        ["clone-newuser"] => answer(clone_with(libc::CLONE_NEWUSER as i64)),
        ["clone3"] => answer(call(435, &[0, 0])),
        ["int80-getpid"] => answer(int80(20)),
        ["int80", nr] => answer(int80(number(nr) as u32)),
        ["keyring"] => answer(call(libc::SYS_keyctl, &[0, -3, 0])),
        ["keyring-read", serial] => answer(call(libc::SYS_keyctl, &[11, number(serial), 0, 0])),
        ["setcap", path] => answer(set_capability(path)),
        ["exe-writers", stop] => exe_writers(stop),
        ["unix-connect", path] => answer(of_std(std::os::unix::net::UnixStream::connect(path).map(drop))),
        // sd_notify(3)
        ["notify", message] => answer(notify(message)),
        ["unix-listen", path] => {
            answer(of_std(std::os::unix::net::UnixListener::bind(path).and_then(|socket| socket.accept().map(drop))))
        }
        ["deny", processes, threads, calls] => answer(deny(number(processes), number(threads), number(calls))),
        ["deny-under-signals", calls] => answer(deny_under_signals(number(calls))),
        ["deny-as", name] => answer(deny_as(name.as_bytes())),
        ["deny-as-many", names] => answer(deny_as_many(number(names))),
        ["kill-myself"] => answer(call(libc::SYS_getpid, &[]).and_then(|_| call(number("0x40000027"), &[]))),
        _ => panic!("unknown probe {words:?}"),
    }
}

fn of_std(result: std::io::Result<()>) -> nix::Result<String> {
    result.map(|()| String::new()).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))
}

fn open_fds() -> String {
    let list = std::fs::read_dir("/proc/self/fd").expect("/proc");
    // The descriptor of the listing itself is gone by the time it is looked at.
    let mut fds: Vec<String> = list
        .flatten()
        .filter_map(|entry| {
            let to = std::fs::read_link(entry.path()).ok()?;
            Some(format!("{}={}", entry.file_name().to_string_lossy(), to.display()))
        })
        .filter(|fd| !fd.ends_with("/fd"))
        .collect();
    fds.sort();
    fds.join(" ")
}

fn push_to_terminal(request: u64) -> nix::Result<String> {
    let byte = b"x";
    // SAFETY: the request reads one byte from the pointer.
    let result = unsafe { libc::syscall(libc::SYS_ioctl, 0, request, byte.as_ptr()) };
    Errno::result(result).map(|value| value.to_string())
}

fn open(path: &str, flags: i32) -> nix::Result<String> {
    let path = CString::new(path).map_err(|_| Errno::EINVAL)?;
    // SAFETY: path is a C string.
    Errno::result(unsafe { libc::open(path.as_ptr(), flags | libc::O_CLOEXEC) }).map(|fd| fd.to_string())
}

fn clone_with(flags: i64) -> nix::Result<String> {
    // SAFETY: without CLONE_VM the child has its own memory, and ends at once.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags | i64::from(libc::SIGCHLD), 0, 0, 0, 0) };
    if pid == 0 {
        // SAFETY: ends the child without running anything of the parent's.
        unsafe { libc::_exit(0) };
    }
    Errno::result(pid).map(|pid| pid.to_string())
}

#[cfg(target_arch = "x86_64")]
fn int80(nr: u32) -> nix::Result<String> {
    let result: i32;
    // SAFETY: getpid by the 32-bit entry touches no memory.
    unsafe {
        std::arch::asm!("int 0x80", inlateout("eax") nr => result, lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _)
    };
    if result < 0 { Err(Errno::from_raw(-result)) } else { Ok(result.to_string()) }
}

#[cfg(not(target_arch = "x86_64"))]
fn int80(_: u32) -> nix::Result<String> {
    Err(Errno::ENOSYS)
}

/// Until the file `stop` exists: tries to open every other process's executable for writing, at once and again when the
/// process may be gone. Tells what was opened.
fn exe_writers(stop: &str) -> Vec<Answer> {
    let _ = std::fs::write(format!("{stop}.ready"), "");
    let (mut opened, mut held, mut seen) = (std::collections::BTreeSet::new(), std::collections::VecDeque::new(), 0u64);
    while !std::path::Path::new(stop).exists() {
        let pids = std::fs::read_dir("/proc")
            .expect("/proc")
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        for pid in pids.filter(|pid| *pid != std::process::id()) {
            let path = format!("/proc/{pid}/exe");
            opened.extend(written(&path));
            if let Ok(file) = std::fs::File::open(&path) {
                seen += 1;
                held.push_back(file);
            }
        }
        for file in &held {
            opened.extend(written(&format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file))));
        }
        held.drain(..held.len().saturating_sub(64));
    }
    let opened: Vec<String> = opened.into_iter().collect();
    vec![("exe-seen".into(), Ok(seen.to_string())), ("exe-writers".into(), Ok(opened.join(" ")))]
}

/// What the path is, if it can be opened for writing; nothing is written.
fn written(path: &str) -> Option<String> {
    let file = std::fs::OpenOptions::new().write(true).open(path).ok()?;
    let to = std::fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file)));
    Some(to.map_or_else(|_| "unknown".into(), |to| to.display().to_string()))
}

/// CAP_SETUID as a file capability (linux/capability.h, struct vfs_cap_data, revision 2 with the effective bit).
fn set_capability(path: &str) -> Result<String, Errno> {
    let path = CString::new(path).expect("no NUL");
    let words = [0x0200_0001u32, 1 << 7, 0, 0, 0];
    let value: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    // SAFETY: C strings and a buffer with its length.
    let result = unsafe {
        libc::setxattr(path.as_ptr(), c"security.capability".as_ptr(), value.as_ptr().cast(), value.len(), 0)
    };
    Errno::result(result).map(|_| "made".into())
}

fn notify(message: &str) -> nix::Result<String> {
    let path = std::env::var_os("NOTIFY_SOCKET").ok_or(Errno::ENOENT)?;
    let sent = std::os::unix::net::UnixDatagram::unbound().and_then(|socket| socket.send_to(message.as_bytes(), path));
    of_std(sent.map(drop))
}

/// mount(2) without arguments, which no profile of ours allows: how many calls failed with what.
fn denied(calls: i64, seen: &mut std::collections::BTreeMap<i32, i64>) {
    for _ in 0..calls {
        // SAFETY: NULL for every pointer; it changes nothing where it is allowed either.
        let result = unsafe { libc::syscall(libc::SYS_mount, 0, 0, 0, 0, 0) };
        *seen.entry(if result == 0 { 0 } else { Errno::last_raw() }).or_default() += 1;
    }
}

fn told(seen: &std::collections::BTreeMap<i32, i64>) -> String {
    let list = seen.iter().map(|(errno, count)| format!("{:?} {count}", Errno::from_raw(*errno)));
    list.collect::<Vec<_>>().join(", ")
}

/// As many processes of as many threads, each of which makes as many denied calls; every process that saw another error ends with 1.
fn deny(processes: i64, threads: i64, calls: i64) -> nix::Result<String> {
    let work = move || {
        let one = move |_| {
            std::thread::spawn(move || {
                let mut seen = Default::default();
                denied(calls, &mut seen);
                seen
            })
        };
        let mut all = std::collections::BTreeMap::new();
        for thread in (0..threads).map(one).collect::<Vec<_>>() {
            thread
                .join()
                .expect("a thread")
                .into_iter()
                .for_each(|(errno, count)| *all.entry(errno).or_default() += count);
        }
        all
    };
    if processes == 1 {
        return Ok(told(&work()));
    }
    let mut children = Vec::new();
    for _ in 0..processes {
        // SAFETY: we have one thread.
        match unsafe { libc::fork() } {
            // SAFETY: ends the child without running anything of the parent's.
            0 => unsafe { libc::_exit(i32::from(work().keys().any(|errno| *errno != libc::EPERM))) },
            child => children.push(child),
        }
    }
    let ended_well = |child: &i32| {
        let mut status = 0;
        // SAFETY: a pid of ours and an int.
        unsafe { libc::waitpid(*child, &mut status, 0) };
        status == 0
    };
    Ok(format!("{} of {processes} saw EPERM alone", children.iter().filter(|child| ended_well(child)).count()))
}

extern "C" fn nothing(_: i32) {}

/// Denied calls while a timer interrupts with a handler that restarts nothing.
fn deny_under_signals(calls: i64) -> nix::Result<String> {
    // SAFETY: plain numbers, of which zero is a valid value; the handler does nothing.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as *const () as usize;
        libc::sigaction(libc::SIGALRM, &action, std::ptr::null_mut());
        let every = libc::timeval { tv_sec: 0, tv_usec: 700 };
        libc::setitimer(
            libc::ITIMER_REAL,
            &libc::itimerval { it_interval: every, it_value: every },
            std::ptr::null_mut(),
        );
    }
    let mut seen = Default::default();
    denied(calls, &mut seen);
    Ok(told(&seen))
}

/// One denied call of a process that calls itself `name`.
fn deny_as(name: &[u8]) -> nix::Result<String> {
    let mut padded = [0u8; 16];
    padded.iter_mut().zip(name).for_each(|(to, from)| *to = *from);
    // SAFETY: 16 bytes are read.
    unsafe { libc::prctl(libc::PR_SET_NAME, padded.as_ptr()) };
    let mut seen = Default::default();
    denied(1, &mut seen);
    Ok(told(&seen))
}

/// One denied call under each of so many names, slowly enough for each to be read.
fn deny_as_many(names: i64) -> nix::Result<String> {
    for name in 0..names {
        deny_as(format!("n{name}").as_bytes())?;
        std::thread::sleep(std::time::Duration::from_millis(3));
    }
    Ok(names.to_string())
}
