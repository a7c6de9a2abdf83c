/* Prints the two strongest frequencies of a signal that has two; fails if they are others. */
#include <kissfft/kiss_fft.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { SAMPLES = 256, LOW = 12, HIGH = 40 };

int main(void) {
    const double turn = 6.283185307179586 / SAMPLES;
    kiss_fft_cpx signal[SAMPLES], bins[SAMPLES];
    kiss_fft_cfg plan = kiss_fft_alloc(SAMPLES, 0, NULL, NULL);
    if (!plan)
        return 1;
    for (int i = 0; i < SAMPLES; i++) {
        signal[i].r = (float)(sin(turn * LOW * i) + sin(turn * HIGH * i));
        signal[i].i = 0;
    }
    kiss_fft(plan, signal, bins);
    free(plan);
    int found = 0;
    for (int i = 1; i < SAMPLES / 2; i++) {
        if (hypot(bins[i].r, bins[i].i) < SAMPLES / 4.0)
            continue;
        printf("%d of %d\n", i, SAMPLES);
        found += i;
    }
    return found == LOW + HIGH ? 0 : 1;
}
