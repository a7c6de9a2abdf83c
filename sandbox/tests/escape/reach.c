/* Tries to reach something outside, or another sandbox: sockets, pipes, queues, memory, signals. */
#define _GNU_SOURCE
#include "attempt.h"
#include <arpa/inet.h>
#include <linux/futex.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/vm_sockets.h>
#include <mqueue.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

static const char *const writable[] = { "/build", "/tmp", "/dev/shm", "/nix/store" };
#define EACH(list) for (unsigned i = 0; i < sizeof list / sizeof *list; i++)

static struct sockaddr_un address(const char *path, int abstract, socklen_t *size)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	strncpy(name.sun_path + abstract, path, sizeof name.sun_path - 2);
	*size = offsetof(struct sockaddr_un, sun_path) + abstract + strlen(path);
	return name;
}

static int serve(const char *path, int abstract)
{
	socklen_t size;
	struct sockaddr_un name = address(path, abstract, &size);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	return bind(fd, (void *)&name, size) || listen(fd, 8) ? -1 : fd;
}

static int visit(const char *path, int abstract)
{
	socklen_t size;
	struct sockaddr_un name = address(path, abstract, &size);
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	if (connect(fd, (void *)&name, size) == 0)
		return fd;
	int error = errno;
	close(fd);
	errno = error;
	return -1;
}

/* Passes a descriptor over a connection, or takes one: what CVE-2024-27297 did. */
static int pass(int connection, int descriptor)
{
	char byte = 0, space[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec part = { &byte, 1 };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space };
	struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
	rights->cmsg_level = SOL_SOCKET;
	rights->cmsg_type = SCM_RIGHTS;
	rights->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(rights), &descriptor, sizeof(int));
	return sendmsg(connection, &message, MSG_NOSIGNAL);
}

static int take(int connection)
{
	char byte, space[CMSG_SPACE(sizeof(int))];
	struct iovec part = { &byte, 1 };
	struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space };
	int descriptor;
	if (recvmsg(connection, &message, 0) < 1 || !CMSG_FIRSTHDR(&message))
		return -1;
	memcpy(&descriptor, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(int));
	return descriptor;
}

/* Hands a descriptor of an output to whoever connects. The first is a child of ours, to show that it works. */
static void smuggle(const char *name)
{
	int listener = serve(name, 1), output = open("output", O_CREAT | O_RDWR, 0644), status;
	WORKS(listener);
	WORKS(output);
	if (fork() == 0) {
		int got = take(visit(name, 1));
		_exit(got >= 0 && write(got, "smuggled", 8) == 8 ? 0 : 1);
	}
	WORKS(pass(accept(listener, 0, 0), output));
	wait(&status);
	MUST(status == 0);
	puts(bad ? "broken" : "listening");
	for (;;) {
		int connection = accept(listener, 0, 0);
		puts("visited");
		pass(connection, output);
	}
}

static void paths_serve(void)
{
	char path[64];
	EACH(writable) {
		snprintf(path, sizeof path, "%s/meet.sock", writable[i]);
		WORKS(serve(path, 0));
		WORKS(visit(path, 0));
		snprintf(path, sizeof path, "%s/meet.fifo", writable[i]);
		WORKS(mkfifo(path, 0666));
		WORKS(chmod(path, 0666));
		WORKS(open(path, O_RDWR));
	}
	puts(bad ? "broken" : "listening");
	for (;;)
		pause();
}

static void paths_visit(void)
{
	char path[64];
	EACH(writable) {
		snprintf(path, sizeof path, "%s/meet.sock", writable[i]);
		REFUSED(visit(path, 0), ENOENT, 0);
		snprintf(path, sizeof path, "%s/meet.fifo", writable[i]);
		REFUSED(open(path, O_WRONLY | O_NONBLOCK), ENOENT, 0);
		snprintf(path, sizeof path, "%s/own", writable[i]);
		WORKS(open(path, O_CREAT | O_WRONLY, 0644));
	}
	/* What both have is read-only. */
	REFUSED(mkfifo("/nix/store/input/meet.fifo", 0666), EROFS, EACCES);
	REFUSED(serve("/nix/store/input/meet.sock", 0), EROFS, EACCES);
}

static int connect_to(int family, int type, const char *host, int port)
{
	struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(port) };
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	int fd = socket(family, type, 0), result, error;
	if (fd < 0)
		return -1;
	if (family == AF_INET) {
		inet_pton(AF_INET, host, &v4.sin_addr);
		result = connect(fd, (void *)&v4, sizeof v4);
	} else {
		inet_pton(AF_INET6, host, &v6.sin6_addr);
		result = connect(fd, (void *)&v6, sizeof v6);
	}
	error = errno;
	close(fd);
	errno = error;
	return result;
}

/* Asks for all routes; those that lead elsewhere than to loopback (interface 1) count. */
static int routes_out(int *seen)
{
	struct { struct nlmsghdr head; struct rtmsg body; } ask = {
		{ sizeof ask, RTM_GETROUTE, NLM_F_REQUEST | NLM_F_DUMP, 1, 0 }, { .rtm_family = AF_UNSPEC } };
	int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE), out = 0;
	static char reply[65536];
	if (fd < 0 || send(fd, &ask, sizeof ask, 0) < 0)
		return -1;
	for (;;) {
		int size = recv(fd, reply, sizeof reply, 0);
		if (size < 0)
			return -1;
		for (struct nlmsghdr *at = (void *)reply; NLMSG_OK(at, size); at = NLMSG_NEXT(at, size)) {
			if (at->nlmsg_type == NLMSG_DONE)
				return out;
			if (at->nlmsg_type != RTM_NEWROUTE)
				continue;
			++*seen;
			int length = RTM_PAYLOAD(at);
			for (struct rtattr *part = RTM_RTA(NLMSG_DATA(at)); RTA_OK(part, length); part = RTA_NEXT(part, length))
				if (part->rta_type == RTA_GATEWAY || (part->rta_type == RTA_OIF && *(int *)RTA_DATA(part) != 1))
					out++;
		}
	}
}

static int vsock(void)
{
	struct sockaddr_vm host = { .svm_family = AF_VSOCK, .svm_cid = 2, .svm_port = 1 };
	int fd = socket(AF_VSOCK, SOCK_STREAM, 0);
	return fd < 0 ? -1 : connect(fd, (void *)&host, sizeof host);
}

static void network(int port4, int port6, const char *abstract)
{
	REFUSED(connect_to(AF_INET, SOCK_STREAM, "192.0.2.1", 80), ENETUNREACH, 0);
	REFUSED(connect_to(AF_INET6, SOCK_STREAM, "2001:db8::1", 80), ENETUNREACH, EADDRNOTAVAIL);
	REFUSED(connect_to(AF_INET, SOCK_DGRAM, "192.0.2.53", 53), ENETUNREACH, 0);
	REFUSED(open("/etc/resolv.conf", O_RDONLY), ENOENT, 0);
	REFUSED(connect_to(AF_INET, SOCK_STREAM, "127.0.0.1", port4), ECONNREFUSED, 0);
	REFUSED(connect_to(AF_INET6, SOCK_STREAM, "::1", port6), ECONNREFUSED, 0);
	REFUSED(visit(abstract, 1), ECONNREFUSED, 0);
	static const char *const sockets[] = { "/tmp/.X11-unix/X0", "/var/run/docker.sock", "/run/docker.sock",
		"/run/dbus/system_bus_socket", "/run/user/1000/bus", "/run/systemd/private" };
	EACH(sockets)
		REFUSED(visit(sockets[i], 0), ENOENT, 0);

	/* The inner loopback works. */
	struct sockaddr_in any = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof any;
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	WORKS(bind(listener, (void *)&any, sizeof any));
	WORKS(listen(listener, 1));
	WORKS(getsockname(listener, (void *)&any, &size));
	WORKS(connect_to(AF_INET, SOCK_STREAM, "127.0.0.1", ntohs(any.sin_port)));
	struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	WORKS(bind(socket(AF_INET6, SOCK_STREAM, 0), (void *)&v6, sizeof v6));

	struct if_nameindex *list = if_nameindex();
	MUST(list && !strcmp(list[0].if_name, "lo"));
	for (int i = 0; list && list[i].if_index; i++)
		MUST(!strcmp(list[i].if_name, "lo") || strstr("tunl0 sit0 ip6tnl0 gre0 gretap0 erspan0 ip_vti0 ip6_vti0 ip6gre0", list[i].if_name));
	int seen = 0;
	MUST(routes_out(&seen) == 0);
	MUST(seen > 0);
}

static void families(void)
{
	REFUSED(vsock(), EPERM, 0);
	REFUSED(socket(AF_ALG, SOCK_SEQPACKET, 0), EPERM, 0);
	REFUSED(socket(AF_PACKET, SOCK_RAW, 0), EPERM, 0);
	REFUSED(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP), EPERM, 0);
	REFUSED(socket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6), EPERM, 0);
	REFUSED(socket(AF_KEY, SOCK_RAW, 2), EPERM, 0);
	REFUSED(socket(AF_BLUETOOTH, SOCK_RAW, 0), EPERM, 0);
	REFUSED(syscall(SYS_socketpair, AF_VSOCK, SOCK_STREAM, 0, (int[2]){ 0 }), EPERM, 0);
	/* The kernel reads 32 bits of a family: bits above them must not hide one. */
	REFUSED(syscall(SYS_socket, 0x100000000L | AF_VSOCK, SOCK_STREAM, 0), EPERM, 0);
	for (int family = 0; family < 64; family++)
		if (family != AF_UNIX && family != AF_INET && family != AF_INET6 && family != AF_NETLINK)
			REFUSED(socket(family, SOCK_DGRAM, 0), EPERM, 0);
	WORKS(socket(AF_UNIX, SOCK_STREAM, 0));
	WORKS(socket(AF_NETLINK, SOCK_RAW, 0));
}

static int queue(const char *name, int flags)
{
	return mq_open(name, flags, 0600, (struct mq_attr *)0);
}

/* On the host: makes one of each, and removes them when stdin ends. */
static void ipc_host(int key, const char *name)
{
	char path[64];
	snprintf(path, sizeof path, "/dev/shm%s", name);
	int memory = shmget(key, 4096, IPC_CREAT | IPC_EXCL | 0666), messages = msgget(key, IPC_CREAT | IPC_EXCL | 0666),
	    semaphore = semget(key, 1, IPC_CREAT | IPC_EXCL | 0666), shared = open(path, O_CREAT | O_EXCL | O_RDWR, 0666);
	WORKS(memory);
	WORKS(messages);
	WORKS(semaphore);
	WORKS(shared);
	WORKS(queue(name, O_CREAT | O_EXCL | O_RDWR));
	puts(bad ? "broken" : "made");
	while (read(0, path, 1) > 0)
		;
	snprintf(path, sizeof path, "/dev/shm%s", name);
	unlink(path);
	mq_unlink(name);
	shmctl(memory, IPC_RMID, 0);
	msgctl(messages, IPC_RMID, 0);
	semctl(semaphore, 0, IPC_RMID);
}

static void ipc(int key, const char *name, int host_pid)
{
	char path[64];
	snprintf(path, sizeof path, "/dev/shm%s", name);
	REFUSED(shmget(key, 0, 0), ENOENT, 0);
	REFUSED(msgget(key, 0), ENOENT, 0);
	REFUSED(semget(key, 0, 0), ENOENT, 0);
	REFUSED(open(path, O_RDWR), ENOENT, 0);
	REFUSED(queue(name, O_RDWR), ENOENT, 0);
	WORKS(shmget(key, 4096, IPC_CREAT | 0600));
	WORKS(msgget(key, IPC_CREAT | 0600));
	WORKS(semget(key, 1, IPC_CREAT | 0600));
	errno = 0;
	printf("queue %s\n", queue(name, O_CREAT | O_RDWR) >= 0 ? "made" : strerrorname_np(errno));
	REFUSED(syscall(SYS_keyctl, 0 /* GET_KEYRING_ID */, -4 /* user */, 0), EPERM, 0);
	REFUSED(syscall(SYS_add_key, "user", "x", "y", 1, -4), EPERM, 0);
	REFUSED(syscall(SYS_request_key, "user", "x", 0, 0), EPERM, 0);
	REFUSED(kill(host_pid, 0), ESRCH, 0);
	REFUSED(syscall(434 /* pidfd_open */, host_pid, 0), ESRCH, EINVAL);
	/* Everything that can be signalled at all: nobody, since pid 1 does not count. */
	REFUSED(kill(-1, 0), ESRCH, 0);
}

/* Two sandboxes that share an input: which of its inode's wake-ups does the other notice? */
static void wait_on_input(const char *path)
{
	int fd = open(path, O_RDONLY), watch = inotify_init1(IN_NONBLOCK);
	WORKS(fd);
	WORKS(flock(fd, LOCK_EX));
	unsigned *word = mmap(0, 4096, PROT_READ, MAP_SHARED, fd, 0);
	int child = fork();
	if (child == 0) {
		if (syscall(SYS_futex, word, FUTEX_WAIT, *word, 0, 0, 0) == 0)
			puts("channel futex");
		_exit(0);
	}
	usleep(100000);
	WORKS(inotify_add_watch(watch, path, IN_OPEN));
	puts(bad ? "broken" : "listening");
	struct pollfd noticed = { .fd = watch, .events = POLLIN };
	poll(&noticed, 1, 60000);
	if (noticed.revents & POLLIN)
		puts("channel inotify");
	waitpid(child, 0, 0);
	puts("noticed");
}

static void wake_on_input(const char *path)
{
	int fd = open(path, O_RDONLY);
	WORKS(fd);
	if (flock(fd, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK)
		puts("channel flock");
	unsigned *word = mmap(0, 4096, PROT_READ, MAP_SHARED, fd, 0);
	syscall(SYS_futex, word, FUTEX_WAKE, 1, 0, 0, 0);
	attempts += 3;
}

int main(int argc, char **argv)
{
	const char *command = argc > 1 ? argv[1] : "", *first = argc > 2 ? argv[2] : "", *second = argc > 3 ? argv[3] : "",
	           *third = argc > 4 ? argv[4] : "";
	setvbuf(stdout, 0, _IOLBF, 0);
#define IS(name) (!strcmp(command, name))
	if (IS("smuggle")) smuggle(first);
	else if (IS("visit")) REFUSED(visit(first, 1), ECONNREFUSED, EPERM);
	else if (IS("paths-serve")) paths_serve();
	else if (IS("paths-visit")) paths_visit();
	else if (IS("network")) network(atoi(first), atoi(second), third);
	else if (IS("families")) families();
	else if (IS("vsock")) return vsock() < 0 && errno == EAFNOSUPPORT;
	else if (IS("ipc-host")) ipc_host(atoi(first), second);
	else if (IS("ipc")) ipc(atoi(first), second, atoi(third));
	else if (IS("wait-on-input")) wait_on_input(first);
	else if (IS("wake-on-input")) wake_on_input(first);
	else return 2;
	return judged();
}
