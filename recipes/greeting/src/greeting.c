/* __FILE__ is what the compiler was given: a relative name, the same wherever this is built. */
#include <stdio.h>

int main(void) {
    puts("hello from " __FILE__);
    return 0;
}
