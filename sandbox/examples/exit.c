/* A program without a C library, which only exits: what starting one takes where no library gets ready. */
void _start(void)
{
#if defined(__x86_64__)
	__asm__ volatile("syscall" : : "a"(60), "D"(0));
#elif defined(__aarch64__)
	register long call __asm__("x8") = 93;
	register long status __asm__("x0") = 0;
	__asm__ volatile("svc 0" : : "r"(call), "r"(status));
#else
#error "how does a process exit here?"
#endif
	for (;;)
		;
}
