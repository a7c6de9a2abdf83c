/* Tries to make files with power, to write what is not the build's, and to undo mounts. */
#define _GNU_SOURCE
#include "attempt.h"
#include <dirent.h>
#include <grp.h>
#include <linux/fs.h>
#include <sched.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <utime.h>

/* Every way to a set-id bit, x32 and 32-bit calls apart, which kill. */
static void setuid_files(void)
{
	struct stat st;
	struct { unsigned long long flags, mode, resolve; } how = { O_CREAT | O_RDWR, 04755, 0 };
	char ring[256] = { 0 };
	int fd;
	WORKS(fd = open("plain", O_CREAT | O_RDWR, 0755));
	REFUSED(chmod("plain", 04755), EPERM, 0);
	REFUSED(fchmod(fd, 02755), EPERM, 0);
	REFUSED(syscall(SYS_fchmodat, AT_FDCWD, "plain", 06755), EPERM, 0);
	REFUSED(syscall(452 /* fchmodat2 */, AT_FDCWD, "plain", 04755, 0), EPERM, ENOSYS);
	REFUSED(syscall(452, fd, "", 04755, AT_EMPTY_PATH), EPERM, ENOSYS);
	/* The kernel reads 16 bits of a mode: more above them must not hide it. */
	REFUSED(syscall(SYS_chmod, "plain", 0xf00000000L | 04755), EPERM, 0);
	REFUSED(open("by-open", O_CREAT | O_RDWR, 06755), EPERM, 0);
	REFUSED(syscall(SYS_open, "by-open", O_CREAT | O_RDWR, 06755), EPERM, 0);
	REFUSED(syscall(SYS_creat, "by-creat", 02755), EPERM, 0);
	REFUSED(open(".", O_TMPFILE | O_RDWR, 04755), EPERM, 0);
	REFUSED(mknod("by-mknod", S_IFREG | 04755, 0), EPERM, 0);
	REFUSED(syscall(SYS_mknod, "by-mknod", S_IFREG | 04755, 0), EPERM, 0);
	REFUSED(syscall(SYS_mknod, "by-mknod", 04755, 0), EPERM, 0);
	REFUSED(syscall(437 /* openat2 */, AT_FDCWD, "by-openat2", &how, sizeof how), ENOSYS, 0);
	REFUSED(syscall(425 /* io_uring_setup */, 8, ring), ENOSYS, 0);
	REFUSED(syscall(426 /* io_uring_enter */, fd, 1, 1, 0, 0, 0), ENOSYS, 0);
	REFUSED(syscall(469 /* file_setattr */, AT_FDCWD, "plain", ring, 24, 0), EPERM, ENOSYS);
	/* These work, without the bits. */
	WORKS(mkdir("directory", 02755));
	WORKS(stat("directory", &st));
	MUST(!(st.st_mode & 06000));
	REFUSED(chmod("directory", 02755), EPERM, 0);
	/* Without O_CREAT the mode is not read, and musl passes whatever is in the register. */
	WORKS(syscall(SYS_open, "plain", O_RDONLY, 04755));
	WORKS(fd = open(".", O_TMPFILE | O_RDWR, 0755));
	REFUSED(fchmod(fd, 04755), EPERM, 0);
	char path[64];
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	WORKS(linkat(AT_FDCWD, path, AT_FDCWD, "linked", AT_SYMLINK_FOLLOW));
	WORKS(stat("linked", &st));
	MUST(!(st.st_mode & 06000));
	WORKS(chmod("plain", 0700));
	WORKS(stat("plain", &st));
	MUST((st.st_mode & 07777) == 0700);
}

static void attributes(void)
{
	int fd = open("plain", O_CREAT | O_RDWR, 0644);
	/* cap_net_admin=ep, as setcap writes it, version 2 and (for user namespaces) 3. */
	unsigned capability[] = { 0x02000001, 1 << 12, 0, 0, 0 }, rooted[] = { 0x03000001, 1 << 12, 0, 0, 0, 0 };
	struct { unsigned long long value; unsigned size, flags; } given = { (unsigned long)capability, 20, 0 };
	static const char *const names[] = { "security.capability", "user.x", "trusted.x", "system.posix_acl_access",
		"system.posix_acl_default", "security.selinux" };
	for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
		REFUSED(syscall(SYS_setxattr, "plain", names[i], capability, 20, 0), ENOTSUP, 0);
		REFUSED(syscall(SYS_lsetxattr, "plain", names[i], rooted, 24, 0), ENOTSUP, 0);
		REFUSED(syscall(SYS_fsetxattr, fd, names[i], capability, 20, 0), ENOTSUP, 0);
		REFUSED(syscall(463 /* setxattrat */, AT_FDCWD, "plain", 0, names[i], &given, sizeof given), ENOTSUP, ENOSYS);
		REFUSED(syscall(SYS_removexattr, "plain", names[i]), ENOTSUP, 0);
		REFUSED(syscall(SYS_lremovexattr, "plain", names[i]), ENOTSUP, 0);
		REFUSED(syscall(SYS_fremovexattr, fd, names[i]), ENOTSUP, 0);
		REFUSED(syscall(466 /* removexattrat */, AT_FDCWD, "plain", 0, names[i]), ENOTSUP, ENOSYS);
	}
	/* The way around: a namespace of its own in which setting them is allowed. */
	REFUSED(unshare(CLONE_NEWUSER), EPERM, ENOSPC);
}

static void nodes(void)
{
	static const struct { const char *name; int mode, major, minor; } all[] = { { "null", S_IFCHR, 1, 3 },
		{ "mem", S_IFCHR, 1, 1 }, { "loop", S_IFBLK, 7, 0 }, { "disk", S_IFBLK, 254, 0 }, { "whiteout", S_IFCHR, 0, 0 },
		{ "tty", S_IFCHR, 5, 0 } };
	struct stat st;
	for (unsigned i = 0; i < sizeof all / sizeof *all; i++) {
		REFUSED(mknod(all[i].name, all[i].mode | 0666, makedev(all[i].major, all[i].minor)), EPERM, 0);
		REFUSED(syscall(SYS_mknod, all[i].name, all[i].mode, makedev(all[i].major, all[i].minor)), EPERM, 0);
		REFUSED(stat(all[i].name, &st), ENOENT, 0);
	}
	WORKS(mknod("fifo", S_IFIFO | 0644, 0));
	WORKS(mknod("file", S_IFREG | 0644, 0));
}

static void sysctls(void)
{
	static const char *const files[] = { "/proc/sys/kernel/panic", "/proc/sys/kernel/core_pattern",
		"/proc/sys/kernel/modprobe", "/proc/sysrq-trigger", "/proc/sys/user/max_user_namespaces",
		"/proc/sys/vm/drop_caches", "/proc/sys/kernel/hostname", "/proc/sys/fs/binfmt_misc/register",
		"/proc/irq/default_smp_affinity", "/proc/self/oom_adj_none", "/sys/fs/cgroup/release_agent",
		"/sys/fs/cgroup/memory/release_agent", "/sys/fs/cgroup/rdma/release_agent", "/sys/kernel/uevent_helper",
		"/proc/acpi/wakeup", "/proc/scsi/scsi", "/proc/bus/pci/devices" };
	for (unsigned i = 0; i < sizeof files / sizeof *files; i++) {
		errno = 0;
		int fd = open(files[i], O_WRONLY), error = errno;
		attempts++;
		if (fd >= 0 || (error != EROFS && error != EACCES && error != ENOENT)) {
			printf("%s: %s\n", files[i], fd >= 0 ? "open for writing" : strerror(error));
			bad = 1;
		}
	}
	REFUSED(mount("none", "/tmp", "cgroup", 0, "rdma"), EPERM, 0);
	REFUSED(mount("none", "/tmp", "cgroup2", 0, 0), EPERM, 0);
	REFUSED(mount("none", "/tmp", "proc", 0, 0), EPERM, 0);
	REFUSED(mount("none", "/tmp", "sysfs", 0, 0), EPERM, 0);
	char line[256] = "", text[64];
	/* What it looks for is there to be read, if /proc has it at all. */
	printf("panic %s\n", read_all("/proc/sys/kernel/panic", text, sizeof text) > 0 ? "readable" : "absent");
	unsigned inside, outside, count;
	MUST(read_all("/proc/self/uid_map", line, sizeof line) > 0);
	MUST(sscanf(line, "%u %u %u", &inside, &outside, &count) == 3 && count == 1);
	printf("uid_map %u\n", outside);
}

/* Ways back to the host's tree. MARKER is a path of the host with a file in it that is not named in the spec. */
static void unlock(const char *marker)
{
	char path[4096], text[64];
	REFUSED(mount(0, "/nix/store/input", 0, MS_REMOUNT | MS_BIND, 0), EPERM, 0);
	REFUSED(mount("/nix/store/input", "/tmp", 0, MS_BIND, 0), EPERM, 0);
	REFUSED(mount("none", "/tmp", "tmpfs", 0, 0), EPERM, 0);
	REFUSED(umount2("/nix/store/input", MNT_DETACH), EPERM, EINVAL);
	REFUSED(umount2("/dev", 0), EPERM, EINVAL);
	REFUSED(umount2("/", MNT_DETACH), EPERM, EINVAL);
	REFUSED(syscall(428 /* open_tree */, AT_FDCWD, "/nix/store/input", 1), EPERM, 0);
	REFUSED(syscall(429 /* move_mount */, AT_FDCWD, "/nix/store/input", AT_FDCWD, "/tmp", 0), EPERM, 0);
	REFUSED(syscall(442 /* mount_setattr */, AT_FDCWD, "/nix/store/input", 0, path, 32), EPERM, 0);
	REFUSED(syscall(SYS_pivot_root, ".", "."), EPERM, 0);
	REFUSED(syscall(SYS_pivot_root, "/tmp", "/tmp"), EPERM, 0);
	REFUSED(syscall(SYS_setns, open("/proc/self/ns/mnt", O_RDONLY), 0), EPERM, 0);
	REFUSED(open("/proc/1/ns/mnt", O_RDONLY), EACCES, EPERM);
	REFUSED(open("/proc/1/root/etc", O_RDONLY), EACCES, EPERM);
	REFUSED(open("/proc/1/cwd", O_RDONLY), EACCES, EPERM);
	REFUSED(rename("/nix/store/input", "/nix/store/other"), EBUSY, 0);
	REFUSED(rename("/nix/store", "/nix/other"), EBUSY, EROFS);
	REFUSED(rmdir("/nix/store/input"), EBUSY, 0);
	REFUSED(unlink("/nix/store/single"), EBUSY, 0);
	/* The stub under a mount, exchanged with a link. */
	WORKS(symlink("/etc", "/nix/store/exchange"));
	REFUSED(syscall(SYS_renameat2, AT_FDCWD, "/nix/store/exchange", AT_FDCWD, "/nix/store/input", 2), EBUSY, 0);
	REFUSED(open("/nix/store/input/file", O_WRONLY), EROFS, EACCES);
	REFUSED(open("/proc/sys/kernel/panic", O_WRONLY), EROFS, EACCES);

	/* The classic: chroot down, then walk up from a descriptor that was left above. */
	int up = open("/", O_RDONLY | O_DIRECTORY);
	WORKS(up);
	mkdir("/tmp/down", 0755);
	printf("chroot %s\n", chroot("/tmp/down") == 0 ? "made" : "refused");
	WORKS(fchdir(up));
	for (int i = 0; i < 64; i++)
		WORKS(chdir(".."));
	REFUSED(open(marker + 1, O_RDONLY), ENOENT, 0);
	WORKS(read_all("nix/store/input/file", text, sizeof text));
}

static void groups(void)
{
	char text[64] = "";
	gid_t list[32];
	int count = getgroups(32, list);
	printf("groups %d gid %d\n", count, getgid());
	REFUSED(setgroups(0, 0), EPERM, 0);
	REFUSED(setgroups(1, (gid_t[]){ 0 }), EPERM, 0);
	/* As where there are others: an id that is not mapped would be EINVAL. */
	REFUSED(setgid(0), EPERM, 0);
	REFUSED(setresgid(5, 5, 5), EPERM, 0);
	REFUSED(setresuid(0, 0, 0), EPERM, 0);
	int own = open("/nix/store/out", O_CREAT | O_RDWR, 0644);
	REFUSED(fchown(own, 0, 0), EPERM, 0);
	REFUSED(chown("/nix/store/out", -1, 5), EPERM, 0);
	WORKS(fchown(own, getuid(), -1));
	WORKS(chown("/nix/store/out", -1, getgid()));
	/* Anyone may open their own map; it is the write that was made once and for all. */
	REFUSED(write(open("/proc/self/gid_map", O_WRONLY), "0 0 1", 5), EPERM, EBADF);
	REFUSED(write(open("/proc/self/setgroups", O_WRONLY), "allow", 5), EPERM, EBADF);
	MUST(read_all("/proc/self/setgroups", text, sizeof text) > 0 && !strcmp(text, "deny\n"));
	MUST(setresgid(-1, getgid(), -1) == 0);
}

/* Every write to an input that there is a call for. PATH is a file of it. */
static void input_write(void)
{
	const char *file = "/nix/store/input/file";
	struct utimbuf times = { 1, 1 };
	struct statfs fs;
	char text[64] = "";
	int fd = open(file, O_RDONLY), own = open("/nix/store/out", O_CREAT | O_RDWR, 0644), flags = 0;
	WORKS(fd);
	WORKS(own);
	REFUSED(open(file, O_WRONLY), EROFS, EACCES);
	REFUSED(open(file, O_RDWR | O_TRUNC), EROFS, EACCES);
	REFUSED(open("/proc/self/fd/3", O_RDWR), EROFS, EACCES);
	REFUSED(open("/nix/store/input/new", O_CREAT | O_WRONLY, 0644), EROFS, 0);
	REFUSED(open("/nix/store/input", O_TMPFILE | O_WRONLY, 0644), EROFS, EACCES);
	REFUSED(write(fd, "x", 1), EBADF, 0);
	REFUSED(ftruncate(fd, 0), EINVAL, EBADF);
	REFUSED(truncate(file, 0), EROFS, EACCES);
	REFUSED(fallocate(fd, 0, 0, 100), EBADF, 0);
	REFUSED(chmod(file, 0777), EROFS, EPERM);
	REFUSED(fchmod(fd, 0777), EROFS, EPERM);
	REFUSED(chown(file, getuid(), getgid()), EROFS, EPERM);
	REFUSED(utime(file, &times), EROFS, 0);
	REFUSED(futimens(fd, 0), EROFS, EACCES);
	REFUSED(unlink(file), EROFS, 0);
	REFUSED(rename(file, "/nix/store/input/other"), EROFS, EXDEV);
	REFUSED(rename("/nix/store/out", file), EROFS, EXDEV);
	REFUSED(rename("/nix/store/input", "/nix/store/other"), EBUSY, 0);
	REFUSED(rmdir("/nix/store/input"), EBUSY, 0);
	REFUSED(rename("/nix/store", "/nix/away"), EROFS, EBUSY);
	REFUSED(link(file, "/nix/store/linked"), EXDEV, 0);
	REFUSED(symlink("x", "/nix/store/input/link"), EROFS, 0);
	REFUSED(ioctl(fd, FS_IOC_SETFLAGS, &flags), EROFS, ENOTTY);
	REFUSED(ioctl(fd, FICLONE, own), EBADF, EXDEV);
	REFUSED(copy_file_range(own, 0, fd, 0, 1, 0), EBADF, 0);
	REFUSED((long)mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), EACCES, 0);
	REFUSED(fcntl(fd, F_SETLEASE, F_WRLCK), EPERM, EACCES);
	REFUSED(fcntl(fd, F_SETLEASE, F_RDLCK), EPERM, EACCES);
	REFUSED(mount("overlay", "/tmp", "overlay", 0, "lowerdir=/nix/store/input,upperdir=/build,workdir=/build"), EPERM, 0);
	void *page = mmap(0, 4096, PROT_READ, MAP_SHARED, fd, 0);
	REFUSED(mprotect(page, 4096, PROT_READ | PROT_WRITE), EACCES, 0);
	REFUSED(madvise(page, 4096, MADV_REMOVE), EACCES, EINVAL);
	int memory = open("/proc/self/mem", O_RDWR);
	if (memory >= 0)
		REFUSED(pwrite(memory, "x", 1, (long)page), EIO, EFAULT);
	REFUSED(open("/nix/store/single", O_WRONLY), EROFS, EACCES);
	REFUSED(open("/new", O_CREAT | O_WRONLY, 0644), EROFS, 0);
	REFUSED(mkdir("/etc/new", 0755), EROFS, 0);
	REFUSED(open("/etc/passwd", O_WRONLY), EROFS, EACCES);
	WORKS(statfs(file, &fs));
	MUST(fs.f_flags & 1 /* ST_RDONLY */);
	MUST(read_all(file, text, sizeof text) == 7 && !strcmp(text, "pinned\n"));
	MUST(read_all("/nix/store/single", text, sizeof text) == 7);
	MUST(readlink("/nix/store/link", text, sizeof text) == 10 && !strncmp(text, "input/file", 10));
	WORKS(write(own, "made\n", 5));
	WORKS(open("/tmp/x", O_CREAT | O_WRONLY, 0644));
	WORKS(link("/nix/store/out", "/nix/store/out2"));
}

/* The file systems that the kernel makes are the kernel's, whatever the root's image put in their place. */
static void own_kernel_files(void)
{
	static const char *const masks[] = { "kcore", "keys", "key-users", "kallsyms", "timer_list", "sched_debug",
		"config.gz", "cmdline", "interrupts", "modules" };
	struct statfs fs;
	struct stat st;
	char path[64], text[256];
	WORKS(stat("/dev/null", &st));
	MUST(S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3));
	WORKS(lstat("/dev/null", &st));
	MUST(S_ISCHR(st.st_mode));
	int null = open("/dev/null", O_RDWR);
	MUST(write(null, "to nobody", 9) == 9 && read(null, text, 9) == 0);
	REFUSED(lstat("/dev/console", &st), ENOENT, 0);
	static const char *const procs[] = { "/proc", "/proc/self/attr", "/proc/self/status", "/proc/sys", "/proc/1" };
	for (unsigned i = 0; i < sizeof procs / sizeof *procs; i++) {
		WORKS(statfs(procs[i], &fs));
		MUST(fs.f_type == 0x9fa0 /* PROC_SUPER_MAGIC */);
	}
	for (unsigned i = 0; i < sizeof masks / sizeof *masks; i++) {
		snprintf(path, sizeof path, "/proc/%s", masks[i]);
		MUST(read_all(path, text, sizeof text) <= 0);
		if (lstat(path, &st) == 0)
			MUST(S_ISREG(st.st_mode) || S_ISDIR(st.st_mode));
		REFUSED(umount2(path, MNT_DETACH), EPERM, EINVAL);
		MUST(unlink(path) < 0);
	}
	/* A mask that was a symlink of procfs' own (CVE-2025-31133) would lead to what is behind it. */
	REFUSED(rename("/dev/null", "/dev/other"), EROFS, EBUSY);
	REFUSED(unlink("/dev/null"), EROFS, EBUSY);
	REFUSED(symlink("/proc/sys/kernel/core_pattern", "/dev/console"), EROFS, 0);
	/* Writes that are allowed in /proc reach the process' own file and nothing else. */
	int own = open("/proc/self/comm", O_WRONLY);
	WORKS(own);
	WORKS(fstatfs(own, &fs));
	MUST(fs.f_type == 0x9fa0);
	WORKS(write(own, "renamed", 7));
	MUST(read_all("/proc/self/comm", text, sizeof text) > 0 && !strcmp(text, "renamed\n"));
}

/* Only 0, 1 and 2, and no way up from where it stands. */
static void descriptors(const char *marker)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;
	char path[4200], text[4096];
	WORKS(dir ? 0 : -1);
	while (dir && (entry = readdir(dir))) {
		if (entry->d_name[0] == '.' || atoi(entry->d_name) == dirfd(dir))
			continue;
		snprintf(path, sizeof path, "/proc/self/fd/%.8s", entry->d_name);
		ssize_t size = readlink(path, text, sizeof text - 1);
		text[size < 0 ? 0 : size] = 0;
		attempts++;
		if (atoi(entry->d_name) > 2) {
			printf("open: %s %s\n", entry->d_name, text);
			bad = 1;
		}
	}
	for (int fd = 0; fd < 256; fd++) {
		if (dir && fd == dirfd(dir))
			continue;
		snprintf(path, sizeof path, "/proc/self/fd/%d/../../../../../../../../../../../..%s", fd, marker);
		REFUSED(open(path, O_RDONLY), ENOENT, ENOTDIR);
	}
	WORKS(getcwd(text, sizeof text) ? 0 : -1);
	printf("cwd %s\n", text);
	MUST(text[0] == '/');
	snprintf(path, sizeof path, "../../../../../../../../../../../../../../../..%s", marker);
	REFUSED(open(path, O_RDONLY), ENOENT, 0);
	REFUSED(open(marker, O_RDONLY), ENOENT, 0);
}

static void many(void)
{
	char path[64];
	int made = 0;
	while (made < 1000000 && open("/dev/null", O_RDONLY) >= 0)
		made++;
	MUST(errno == EMFILE);
	printf("opened %d\n", made);
	for (int fd = 3; fd < made + 3; fd++)
		close(fd);
	made = 0;
	while (made < 1000000 && inotify_init1(0) >= 0)
		made++;
	MUST(errno == EMFILE);
	printf("watchers %d\n", made);
	for (int fd = 4; fd < made + 3; fd++)
		close(fd);
	/* A watch needs an inode, and of these a file system in memory has so many and no more. */
	made = 0;
	for (; made < 1000000; made++) {
		snprintf(path, sizeof path, "/tmp/%d", made);
		int fd = open(path, O_CREAT | O_WRONLY, 0644);
		if (fd < 0)
			break;
		close(fd);
		if (inotify_add_watch(3, path, IN_OPEN) < 0)
			break;
	}
	MUST(errno == ENOSPC);
	printf("watches %d\n", made);
	for (int i = 0; i < 1000; i++)
		REFUSED(mount("none", "/tmp", "tmpfs", 0, 0), EPERM, 0);
}

int main(int argc, char **argv)
{
	const char *command = argc > 1 ? argv[1] : "", *first = argc > 2 ? argv[2] : "";
	setvbuf(stdout, 0, _IOLBF, 0);
#define IS(name) (!strcmp(command, name))
	if (IS("setuid")) setuid_files();
	else if (IS("attributes")) attributes();
	else if (IS("nodes")) nodes();
	else if (IS("sysctls")) sysctls();
	else if (IS("unlock")) unlock(first);
	else if (IS("groups")) groups();
	else if (IS("input-write")) input_write();
	else if (IS("kernel-files")) own_kernel_files();
	else if (IS("descriptors")) descriptors(first);
	else if (IS("many")) many();
	else if (IS("read")) {
		char text[4096];
		for (int i = 2; i < argc; i++)
			if (read_all(argv[i], text, sizeof text) >= 0)
				printf("%s", text);
		return 0;
	} else return 2;
	return judged();
}
