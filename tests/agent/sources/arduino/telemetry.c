/* An Arduino Uno that says a line of readings again and again, over its UART at 115200 baud.
 *
 * $<number>,<flow>,<speed>*<exclusive-or of all between, two hexadecimal digits>
 *
 * Built with: avr-gcc -mmcu=atmega328p -DF_CPU=16000000UL -Os -o telemetry.elf telemetry.c
 */

#include <avr/io.h>
#include <stdint.h>
#include <stdio.h>

#define BAUD 115200UL
#define LINES 2000U

static void say(char c)
{
    while (!(UCSR0A & (1 << UDRE0)))
        ;
    UDR0 = (uint8_t)c;
}

static void say_line(const char *body)
{
    static const char digits[] = "0123456789ABCDEF";
    uint8_t sum = 0;

    say('$');
    for (; *body; body++) {
        sum ^= (uint8_t)*body;
        say(*body);
    }
    say('*');
    say(digits[sum >> 4]);
    say(digits[sum & 15]);
    say('\r');
    say('\n');
}

int main(void)
{
    char body[32];
    uint16_t number;

    UBRR0 = (uint16_t)(F_CPU / (8UL * BAUD) - 1); /* at double speed: 2.1 % off, within 8N1's reach */
    UCSR0A = 1 << U2X0;
    UCSR0B = (1 << TXEN0) | (1 << RXEN0);
    UCSR0C = (1 << UCSZ01) | (1 << UCSZ00);

    /* The other end says when it listens: an emulated board does not start anew at its opening. */
    while (!(UCSR0A & (1 << RXC0)))
        ;
    (void)UDR0;
    for (number = 0; number < LINES; number++) {
        snprintf(body, sizeof body, "%u,%u.%u,%u", number, 10 + number % 7, number % 10,
                 1480 + number % 5);
        say_line(body);
    }
    for (;;)
        ;
}
