// What the product's inner loops have in common, whatever their instructions.
#pragma once

#include "linear_layout.h"

namespace hg {

using Kernel = Format;  // of a panel as the loop sees it: an int4 panel may have been unpacked to int8 before

// What to fetch while a tile computes: two lines `step` / 2 apart each step, and then `step` bytes further.
struct Ahead {
    const uint8_t* at;
    int64_t step;
    bool once;  // read by this tile alone: what the caches hold is worth more
};

// The rows at `inputs`, `stride` bytes apart, times one panel.
struct Tile {
    const uint8_t* panel;  // its steps; of int4: the packed panel
    int64_t steps;
    const uint8_t* inputs;
    int64_t stride;
    Ahead ahead;

    const RowHeader& header(int row) const { return *reinterpret_cast<const RowHeader*>(inputs + row * stride); }
};

inline const High* high_parts(const RowHeader& header) {
    return reinterpret_cast<const High*>(reinterpret_cast<const uint8_t*>(&header) + header.high_at);
}

}  // namespace hg
