/* Tries to outlive, to reach pid 1, to make namespaces, to call by another door, to type into a terminal. */
#define _GNU_SOURCE
#include "attempt.h"
#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>

/* Nothing of pid 1, which has our uid, may be reached, nor the program that it runs. */
static void pid1(const char *itself)
{
	char byte;
	struct iovec local = { &byte, 1 }, remote = { (void *)0x400000, 1 };
	REFUSED(ptrace(PTRACE_ATTACH, 1, 0, 0), EPERM, 0);
	REFUSED(ptrace(PTRACE_SEIZE, 1, 0, 0), EPERM, 0);
	REFUSED(process_vm_readv(1, &local, 1, &remote, 1, 0), EPERM, 0);
	REFUSED(process_vm_writev(1, &local, 1, &remote, 1, 0), EPERM, 0);
	static const char *const read[] = { "mem", "exe", "maps", "environ", "auxv", "fd", "fdinfo", "map_files", "root", "cwd",
		"ns/mnt", "ns/user", "ns/net" };
	for (unsigned i = 0; i < sizeof read / sizeof *read; i++) {
		char path[64], text[64];
		snprintf(path, sizeof path, "/proc/1/%s", read[i]);
		int fd = open(path, O_RDONLY), size = fd < 0 ? -1 : pread(fd, text, sizeof text, 0);
		attempts++;
		/* environ and maps may be opened by anyone, and then read as empty or not at all. */
		if (size > 0 || (fd >= 0 && strcmp(read[i], "environ") && strcmp(read[i], "maps") && strcmp(read[i], "auxv"))) {
			printf("%s: possible\n", path);
			bad = 1;
		}
	}
	REFUSED(open("/proc/1/mem", O_RDWR), EACCES, EPERM);
	REFUSED(open("/proc/1/exe", O_WRONLY), EACCES, EPERM);
	REFUSED(syscall(438 /* pidfd_getfd */, syscall(434 /* pidfd_open */, 1, 0), 0, 0), EPERM, 0);
	MUST(open("/proc/self/exe", O_WRONLY) < 0 && (errno == EROFS || errno == EACCES || errno == ETXTBSY));
	/* The program that interprets this file would be the launcher, were it still around: CVE-2019-5736. */
	int script = open("script", O_CREAT | O_WRONLY, 0755), status;
	WORKS(write(script, "#!/proc/self/exe interpreted\n", 29));
	close(script);
	fflush(stdout);
	if (fork() == 0) {
		execl("script", "script", (char *)0);
		_exit(1);
	}
	wait(&status);
	MUST(WIFEXITED(status) && WEXITSTATUS(status) == 42);
	REFUSED(execl("/proc/1/exe", itself, (char *)0), EACCES, EPERM);
	kill(1, SIGKILL);
	kill(1, SIGSTOP);
	kill(1, SIGSEGV);
	MUST(getppid() == 1);
	/* Tracing works, of one's own children. */
	int child = fork();
	if (child == 0)
		for (;;)
			pause();
	WORKS(ptrace(PTRACE_SEIZE, child, 0, 0));
	kill(child, SIGKILL);
}

static void namespaces(void)
{
	static const int flags[] = { CLONE_NEWUSER, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWNET, CLONE_NEWIPC, CLONE_NEWUTS,
		CLONE_NEWCGROUP, 0x80 /* CLONE_NEWTIME */ };
	struct { unsigned long long flags, pidfd, child, parent, signal, stack, size, tls; } how = { CLONE_NEWUSER, 0, 0, 0, 0, 0, 0, 0 };
	char text[64], buffer[256] = { 0 };
	for (unsigned i = 0; i < sizeof flags / sizeof *flags; i++) {
		REFUSED(unshare(flags[i]), EPERM, 0);
		REFUSED(unshare(flags[i] | CLONE_FS), EPERM, 0);
		if (flags[i] != 0x80 /* in clone it is part of the signal */)
			REFUSED(syscall(SYS_clone, flags[i] | SIGCHLD, 0, 0, 0, 0), EPERM, 0);
	}
	REFUSED(syscall(SYS_clone3, &how, sizeof how), ENOSYS, 0);
	int ns = open("/proc/self/ns/user", O_RDONLY);
	WORKS(ns);
	REFUSED(setns(ns, 0), EPERM, 0);
	REFUSED(setns(syscall(434, getppid(), 0), CLONE_NEWNS), EPERM, 0);
	REFUSED(mount("none", "/tmp", "tmpfs", 0, 0), EPERM, 0);
	REFUSED(mount("overlay", "/tmp", "overlay", 0, "lowerdir=/,upperdir=/build,workdir=/build"), EPERM, 0);
	REFUSED(syscall(430 /* fsopen */, "overlay", 0), EPERM, 0);
	REFUSED(syscall(457 /* statmount */, buffer, buffer, 256, 0), EPERM, ENOSYS);
	REFUSED(syscall(458 /* listmount */, buffer, buffer, 256, 0), EPERM, ENOSYS);
	/* What nft would ask first, or nothing at all where the kernel has no tables. */
	int netfilter = socket(AF_NETLINK, SOCK_RAW, 12 /* NETFILTER */);
	REFUSED(netfilter < 0 ? -1 : setsockopt(netfilter, SOL_SOCKET, SO_SNDBUFFORCE, &ns, sizeof ns), EPERM, EPROTONOSUPPORT);
	REFUSED(sethostname("x", 1), EPERM, 0);
	REFUSED(chroot("/tmp"), EPERM, 0);
	/* Behind the filter the namespace itself allows no other. */
	MUST(read_all("/proc/sys/user/max_user_namespaces", text, sizeof text) > 0 && atoi(text) == 0);
}

/* Calls that lead to much of the kernel, or to what all users share. */
static void surface(void)
{
	char buffer[256] = { 0 };
	REFUSED(syscall(425 /* io_uring_setup */, 8, buffer), ENOSYS, 0);
	REFUSED(syscall(SYS_bpf, 0, buffer, 64), EPERM, 0);
	REFUSED(syscall(SYS_perf_event_open, buffer, 0, -1, -1, 0), EPERM, 0);
	REFUSED(syscall(SYS_userfaultfd, 1), EPERM, 0);
	REFUSED(syscall(SYS_name_to_handle_at, AT_FDCWD, "/", buffer, buffer, 0), EPERM, 0);
	REFUSED(syscall(SYS_open_by_handle_at, AT_FDCWD, buffer, 0), EPERM, 0);
	REFUSED(syscall(SYS_init_module, buffer, 1, ""), EPERM, 0);
	REFUSED(syscall(SYS_kexec_load, 0, 0, 0, 0), EPERM, 0);
	REFUSED(syscall(SYS_reboot, 0, 0, 0, 0), EPERM, 0);
	REFUSED(syscall(SYS_syslog, 3, buffer, 256), EPERM, 0);
	REFUSED(syscall(447 /* memfd_secret */, 0), EPERM, 0);
	REFUSED(personality(PER_LINUX32), EPERM, 0);
	REFUSED(syscall(999), ENOSYS, 0);
	WORKS(personality(0xffffffff));
	MUST(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1);
	MUST(prctl(PR_GET_SECCOMP, 0, 0, 0, 0) == 2);
	for (int capability = 0; capability <= CAP_LAST_CAP; capability++)
		MUST(prctl(PR_CAPBSET_READ, capability, 0, 0, 0) <= 0);
	struct __user_cap_header_struct head = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct sets[2], all[2] = { { ~0u, ~0u, ~0u }, { ~0u, ~0u, ~0u } };
	WORKS(syscall(SYS_capget, &head, sets));
	MUST(!sets[0].effective && !sets[1].effective && !sets[0].permitted && !sets[1].permitted && !sets[0].inheritable);
	REFUSED(syscall(SYS_capset, &head, all), EPERM, 0);
	/* Every user may ask to keep what it has, and that is nothing, whoever it becomes. */
	WORKS(prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0));
	MUST(prctl(PR_GET_KEEPCAPS, 0, 0, 0, 0) == 1);
	WORKS(setresuid(getuid(), getuid(), getuid()));
	WORKS(syscall(SYS_capget, &head, sets));
	MUST(!sets[0].effective && !sets[1].effective && !sets[0].permitted && !sets[1].permitted);
	REFUSED(syscall(SYS_capset, &head, all), EPERM, 0);
}

static long call32(long number)
{
	long result;
	__asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(-1L), "c"(-1L), "d"(-1L), "S"(-1L), "D"(-1L) : "memory");
	return result;
}

/* Each number by the 32-bit door and with the x32 bit, in a child of its own: killed, before the call did anything. */
static void foreign(void)
{
	int kills[2] = { 0 }, status;
	fflush(stdout);
	if (fork() == 0)
		_exit(syscall(SYS_getpid) > 0 ? 7 : 1);
	wait(&status);
	MUST(WIFEXITED(status) && WEXITSTATUS(status) == 7);
	for (int door = 0; door < 2; door++)
		for (int number = 0; number <= 600; number++) {
			fflush(stdout);
			int child = fork();
			if (child == 0) {
				if (door)
					syscall(0x40000000L | number, -1, -1, -1, -1, -1, -1);
				else
					call32(number);
				_exit(0);
			}
			WORKS(child);
			wait(&status);
			attempts++;
			/* A kernel without 32-bit calls kills by its own means. */
			if (WIFSIGNALED(status) && (WTERMSIG(status) == SIGSYS || (!door && WTERMSIG(status) == SIGSEGV)))
				kills[door]++;
			else {
				printf("%s %d: status %#x\n", door ? "x32" : "i386", number, status);
				bad = 1;
			}
		}
	printf("killed %d %d\n", kills[0], kills[1]);
}

/* Ways to run something else than what was sent in, or with more. */
static void exec_tricks(char **environment)
{
	static char program[4 << 20], text[4096];
	int status, memory = syscall(SYS_memfd_create, "program", 0);
	MUST(environment[0] == 0);
	int size = read_all("/proc/self/exe", program, sizeof program);
	WORKS(memory);
	MUST(size > 0 && write(memory, program, size) == size);
	fflush(stdout);
	if (fork() == 0) {
		char *argv[] = { "probe", "still-inside", 0 }, *none[] = { "LD_PRELOAD=/nowhere.so", 0 };
		syscall(SYS_execveat, memory, "", argv, none, AT_EMPTY_PATH);
		_exit(1);
	}
	wait(&status);
	MUST(WIFEXITED(status) && WEXITSTATUS(status) == 43);
	REFUSED(open("/proc/sys/fs/binfmt_misc/register", O_WRONLY), ENOENT, EROFS);
	static const char *const shells[] = { "/bin/sh", "/usr/bin/env", "/usr/bin/perl", "/usr/bin/python3" };
	for (unsigned i = 0; i < sizeof shells / sizeof *shells; i++) {
		int script = open("by-shell", O_CREAT | O_WRONLY | O_TRUNC, 0755);
		WORKS(dprintf(script, "#!%s\necho escaped\n", shells[i]));
		close(script);
		REFUSED(execl("by-shell", "by-shell", (char *)0), ENOENT, 0);
		REFUSED(execl(shells[i], shells[i], (char *)0), ENOENT, 0);
	}
	/* Not from where files come in memory alone. */
	MUST(read_all("/proc/self/environ", text, sizeof text) == 0);
}

static int still_inside(void)
{
	char text[4096], *at;
	if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1 || prctl(PR_GET_SECCOMP, 0, 0, 0, 0) != 2)
		return 1;
	if (read_all("/proc/self/status", text, sizeof text) <= 0 || !(at = strstr(text, "CapEff:")))
		return 1;
	if (strtoull(at + 7, 0, 16) || unshare(CLONE_NEWUSER) == 0 || errno != EPERM)
		return 1;
	return 43;
}

static void terminal(void)
{
	char typed = 'x', line[2] = { 3, 0 };
	int discipline = 0;
	REFUSED(open("/dev/tty", O_RDWR), ENXIO, EACCES);
	for (int fd = 0; fd < 3; fd++) {
		REFUSED(ioctl(fd, TIOCSTI, &typed), EPERM, 0);
		REFUSED(ioctl(fd, TIOCLINUX, line), EPERM, 0);
		REFUSED(ioctl(fd, TIOCSETD, &discipline), EPERM, 0);
		REFUSED(syscall(SYS_ioctl, fd, 0x100000000L | TIOCSTI, &typed), EPERM, 0);
		REFUSED(ioctl(fd, TIOCSCTTY, 1), EPERM, ENOTTY);
	}
	printf("isatty %d%d%d\n", isatty(0), isatty(1), isatty(2));
	MUST(getsid(0) == getpid());
}

/* On the host: a terminal of its own whose foreground is COMMAND. Says what came out of it, and what was typed into it. */
static int on_terminal(char **command)
{
	int master = posix_openpt(O_RDWR | O_NOCTTY), waiting = -1;
	char byte = 'x', text[4096];
	if (master < 0 || grantpt(master) || unlockpt(master))
		return 3;
	int slave = open(ptsname(master), O_RDWR | O_NOCTTY);
	int child = fork();
	if (child == 0) {
		setsid();
		ioctl(slave, TIOCSCTTY, 0);
		for (int fd = 0; fd < 3; fd++)
			dup2(slave, fd);
		close(slave);
		close(master);
		if (!strcmp(command[0], "type"))
			_exit(ioctl(0, TIOCSTI, &byte) < 0 ? 4 : 0);
		execv(command[0], command);
		_exit(5);
	}
	int status, size;
	fcntl(master, F_SETFL, O_NONBLOCK);
	for (int ended = 0; !ended;) {
		ended = waitpid(child, &status, WNOHANG) == child;
		while ((size = read(master, text, sizeof text)) > 0)
			fwrite(text, 1, size, stdout);
		usleep(1000);
	}
	/* Canonical mode hands out whole lines only: without it, what waits can be counted. */
	struct { unsigned input, output, control, local; unsigned char rest[64]; } termios;
	ioctl(slave, TCGETS, &termios);
	termios.local &= ~2u /* ICANON */;
	ioctl(slave, TCSETS, &termios);
	ioctl(slave, FIONREAD, &waiting);
	printf("\ntyped %d\n", waiting);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 6;
}

static void daemon_left(void)
{
	if (fork() == 0) {
		setsid();
		if (fork() == 0) {
			signal(SIGTERM, SIG_IGN);
			signal(SIGHUP, SIG_IGN);
			puts("daemon");
			for (;;)
				pause();
		}
		_exit(0);
	}
	wait(0);
	usleep(20000);
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	printf("leaving %lld\n", now.tv_sec * 1000LL + now.tv_nsec / 1000000);
}

/* Ways not to end when asked. */
static void stubborn(const char *way)
{
	sigset_t all;
	sigfillset(&all);
	if (!strcmp(way, "ignore")) {
		signal(SIGTERM, SIG_IGN);
	} else if (!strcmp(way, "block")) {
		sigprocmask(SIG_BLOCK, &all, 0);
	} else if (!strcmp(way, "stop")) {
		puts("asleep");
		for (;;)
			raise(SIGSTOP);
	} else if (!strcmp(way, "vfork")) {
		sigprocmask(SIG_BLOCK, &all, 0);
		puts("asleep");
		/* The parent waits in the kernel, not to be woken by anything but its child's end. */
		if (vfork() == 0)
			for (;;)
				pause();
	} else if (!strcmp(way, "fifo")) {
		sigprocmask(SIG_BLOCK, &all, 0);
		mkfifo("fifo", 0600);
		puts("asleep");
		open("fifo", O_RDONLY);
	} else if (!strcmp(way, "crowd")) {
		sigprocmask(SIG_BLOCK, &all, 0);
		for (int i = 0; i < 50; i++)
			if (fork() == 0)
				break;
	}
	puts("asleep");
	for (;;)
		pause();
}

int main(int argc, char **argv, char **environment)
{
	const char *command = argc > 1 ? argv[1] : "", *first = argc > 2 ? argv[2] : "";
	setvbuf(stdout, 0, _IOLBF, 0);
#define IS(name) (!strcmp(command, name))
	if (IS("pid1")) pid1(argv[0]);
	else if (IS("interpreted")) return 42;
	else if (IS("still-inside")) return still_inside();
	else if (IS("namespaces")) namespaces();
	else if (IS("surface")) surface();
	else if (IS("foreign")) foreign();
	else if (IS("exec")) exec_tricks(environment);
	else if (IS("terminal")) terminal();
	else if (IS("on-terminal")) return on_terminal(argv + 2);
	else if (IS("daemon")) daemon_left();
	else if (IS("stubborn")) stubborn(first);
	else if (IS("sleep")) {
		puts("asleep");
		for (;;)
			pause();
	} else return 2;
	return judged();
}
