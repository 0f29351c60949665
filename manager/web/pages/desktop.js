// The page of one desktop: its parts put together. Each adds its own button to the toolbar.

import { run } from "./connection.js";
import { session } from "./session.js";
import { part } from "./api.js";
import { away, onGiveBack, work } from "./toolbar.js";
import "./clipboard.js";
import "./keyboard.js";
import "./keys.js";
import "./pointer.js";
import "./display.js";
import "./power.js";
import "./sound.js";
import "./people.js";
import "./fullscreen.js";
import "./statistics.js";
import "./share.js";

onGiveBack(() => session.focus());
session.addEventListener("state", () => work(session.connected));

// who works in the desktop needs no toolbar
const screen = part("desktop-screen");
for (const event of ["pointerdown", "keydown", "wheel"]) screen.addEventListener(event, away, { capture: true, passive: true });

await run();
