// SPDX-License-Identifier: Apache-2.0
//! `docker run`: output, stdin, terminals, who runs, where, as whom.

use wsbox_integration::docker::{both, eventually, with_input};
use wsbox_integration::engine::finish;
use wsbox_integration::sandbox::outcome;
use wsbox_integration::terminal::Terminal;
use wsbox_integration::unique;

#[test]
fn output_and_exit_code() {
    both(|docker| {
        let outcome = docker.run("", "echo out; echo error >&2; exit 7");
        assert_eq!((outcome.code, outcome.stdout.as_str(), outcome.stderr.as_str()), (7, "out\n", "error\n"));
    });
}

#[test]
fn a_signal_is_128_and_its_number() {
    both(|docker| assert_eq!(docker.run("--init", "kill -9 $$").code, 137));
}

#[test]
fn stdin_reaches_the_payload() {
    both(|docker| {
        let megabyte = vec![b'x'; 1 << 20];
        let outcome = with_input(&mut docker.command("run", "--rm --interactive", &["wc", "-c"]), &megabyte).ok();
        assert_eq!(outcome.stdout.trim(), "1048576");
        // Without -i there is none.
        assert_eq!(with_input(&mut docker.command("run", "--rm", &["wc", "-c"]), b"text").ok().stdout.trim(), "0");
    });
}

#[test]
fn much_output_arrives_whole() {
    both(|docker| {
        let outcome = docker.run("", "head -c 3000000 /dev/zero | tr '\\0' x; echo end").ok();
        assert_eq!(outcome.stdout.len(), 3_000_004);
        assert!(outcome.stdout.ends_with("xend\n"));
    });
}

#[test]
fn a_terminal() {
    both(|docker| {
        let mut command = docker.command("run", "--rm --interactive --tty", &["sh"]);
        let mut terminal = Terminal::open(&mut command);
        terminal
            .types("tty; until [ \"$(stty size)\" = '33 99' ]; do sleep 0.05; done; echo sized$((40 + 2))\n")
            .sees("/dev/pts/0")
            .sees("sized42");
        terminal.types("ls -l /dev/console /dev/ptmx; echo done$((40 + 2))\n").sees("done42");
        // Control and C interrupts what is in the foreground, not the shell.
        terminal
            .types("echo begun$((1 + 1)); sleep 1000\n")
            .sees("begun2")
            .types("\x03")
            .types("echo interrupted$((1 + 1))\n");
        terminal.sees("interrupted2").types("exit 5\n");
        assert_eq!(terminal.ends(), 5);
    });
}

#[test]
fn detach_from_a_terminal_and_attach_again() {
    both(|docker| {
        let name = unique(docker.runtime);
        let mut command = docker.command("run", &format!("--interactive --tty --name {name}"), &["sh"]);
        let mut terminal = Terminal::open(&mut command);
        terminal.types("value=before\n").types("echo is-up$((1 + 1))\n").sees("is-up2").types("\x10\x11");
        assert_eq!(terminal.ends(), 0, "detached");
        let mut again = Terminal::open(&mut docker.daemon.command(&["attach", &name]));
        again.types("echo it-is-$value\n").sees("it-is-before").types("exit 3\n");
        assert_eq!(again.ends(), 3);
        docker.cli(&["rm", &name]).ok();
    });
}

#[test]
fn rm_leaves_no_container() {
    both(|docker| {
        let name = unique(docker.runtime);
        docker.run(&format!("--name {name}"), "true").ok();
        assert_eq!(docker.cli(&["ps", "-aq", "--filter", &format!("name={name}")]).ok().stdout, "");
    });
}

#[test]
fn init_is_pid_1_and_reaps() {
    both(|docker| {
        let script =
            "(sh -c 'sleep 0.1 & exit' &); sleep 1; cat /proc/1/comm; cat /proc/[0-9]*/status | grep -c State:.Z; true";
        let said = docker.says("--init", script);
        assert_eq!(said.lines().collect::<Vec<_>>(), ["docker-init", "0"]);
        assert_eq!(docker.run("--init", "exit 9").code, 9);
    });
}

#[test]
fn user_and_groups() {
    both(|docker| {
        assert_eq!(docker.says("--user 1000", "id -u; id -g"), "1000\n1000");
        assert_eq!(docker.says("--user user", "id -un"), "user");
        assert_eq!(docker.says("--user 4321:1234 --group-add 99", "id -u; id -G"), "4321\n1234 99");
        assert_eq!(docker.says("", "id -u; echo $HOME"), "0\n/root");
        assert_eq!(docker.says("--user user", "echo $HOME"), "/home/user");
    });
}

#[test]
fn stdio_can_be_opened_by_its_name() {
    both(|docker| {
        let script = "echo out >/dev/stdout; echo error >/dev/stderr";
        for flags in ["--network none", "--network none --user 1000", "--network none --user 1000 --cap-drop ALL"] {
            let outcome = docker.run(flags, script).ok();
            assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("out\n", "error\n"), "{flags}");
        }
        let container = docker.sleeping("--network none");
        assert_eq!(container.exec("--user 1000", script).ok().stdout, "out\n");
    });
}

#[test]
fn where_and_with_what() {
    both(|docker| {
        assert_eq!(docker.says("--workdir /made/here", "pwd; stat -c %u .").lines().next(), Some("/made/here"));
        assert_eq!(docker.says("--hostname somebody", "hostname; cat /etc/hostname"), "somebody\nsomebody");
        assert_eq!(
            docker.says("--domainname example.org --hostname a", "cat /proc/sys/kernel/domainname"),
            "example.org"
        );
        assert_eq!(docker.says("--env ONE=1 --env TWO=2", "echo $ONE$TWO"), "12");
        assert_eq!(docker.argv("--entrypoint echo", &["a", "b c"]).ok().stdout, "a b c\n");
        assert!(docker.says("", "env").contains("PATH=/usr/local/sbin:"), "docker's default PATH");
    });
}

#[test]
fn create_then_start() {
    both(|docker| {
        let name = unique(docker.runtime);
        outcome(&mut docker.command("create", &format!("--name {name}"), &["sh", "-c", "echo hello; exit 4"])).ok();
        let attached = docker.cli(&["start", "--attach", &name]);
        assert_eq!((attached.code, attached.stdout.as_str()), (4, "hello\n"));
        assert_eq!(docker.cli(&["start", "--attach", &name]).code, 4, "a second time");
        docker.cli(&["rm", &name]).ok();
    });
}

#[test]
fn signals_to_the_command_are_forwarded() {
    both(|docker| {
        let script = "trap 'echo got it; exit 42' TERM; echo ready; while :; do sleep 0.05; done";
        let name = unique(docker.runtime);
        let mut command = docker.command("run", &format!("--rm --name {name}"), &["sh", "-c", script]);
        let child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
        eventually("ready", || docker.cli(&["logs", &name]).stdout.contains("ready"));
        let pid = nix::unistd::Pid::from_raw(child.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        let outcome = finish(child);
        assert_eq!(outcome.code, 42, "{outcome:?}");
        assert!(outcome.stdout.contains("got it"), "{outcome:?}");
    });
}

#[test]
fn flags_around_the_container() {
    both(|docker| {
        let folder = docker.folder();
        let id = folder.join("cid");
        let flags = format!("--cidfile {} --log-driver none --label a=b --stop-timeout 1 --network none", id.display());
        assert_eq!(docker.says(&flags, "echo hello"), "hello");
        assert_eq!(std::fs::read_to_string(id).unwrap().len(), 64);
        std::fs::write(folder.join("variables"), "FROM=file\n").unwrap();
        assert_eq!(docker.says(&format!("--env-file {}/variables", folder.display()), "echo $FROM"), "file");
    });
}

#[test]
fn many_at_once() {
    both(|docker| {
        let all = |number: usize| docker.run("--network none", &format!("echo {number}; exit {number}"));
        std::thread::scope(|scope| {
            let runs: Vec<_> = (0..12).map(|number| (number, scope.spawn(move || all(number)))).collect();
            for (number, run) in runs {
                let outcome = run.join().unwrap();
                assert_eq!((outcome.code, outcome.stdout), (number as i32, format!("{number}\n")));
            }
        });
    });
}
