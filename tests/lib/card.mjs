// Reads the state of the card guest from its picture; images/probe/README.md says where it is.

const ROWS = ['presses', 'key', 'x', 'y', 'buttons', 'wheel', 'lamps', 'starts'];
const COLOURS = ['404040', 'ff0000', '00ff00', '0000ff', 'ffff00', '00ffff', 'ff00ff', 'ffffff'];

/** The numbers on the card and the colour of its patch. */
export async function read(person) {
  const points = ROWS.flatMap((_, row) => Array.from({ length: 16 }, (_, bit) => [284 + 8 * bit, 170 + 24 * row]));
  const pixels = await person.pixels([...points, [140, 260]]);
  const number = (row) => pixels.slice(16 * row, 16 * row + 16).reduce((n, [r]) => 2 * n + (r > 127 ? 1 : 0), 0);
  const card = Object.fromEntries(ROWS.map((name, row) => [name, number(row)]));
  card.down = card.key >> 15 === 1;
  card.key &= 0x7fff;
  card.wheel = (card.wheel << 16) >> 16;
  card.patch = pixels.at(-1).map((value) => value.toString(16).padStart(2, '0')).join('');
  return card;
}

/** The patch's colour after so many key presses. */
export const patchAfter = (presses) => COLOURS[presses % 8];
