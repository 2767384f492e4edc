/* Each source is compiled once per level, an instruction set, into one library: its functions are called NAME_LEVEL. */
#ifndef FACERWKV_LEVELS_H
#define FACERWKV_LEVELS_H

#ifndef LEVEL
#define LEVEL plain
#endif
#define JOINED(name, level) name##_##level
#define EXPANDED(name, level) JOINED(name, level)
#define FORM(name) EXPANDED(name, LEVEL)

#endif
