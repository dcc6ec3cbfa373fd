/** `frames python`: prints the Python module. */
import module from "./frames.py" with { type: "text" };
import { version } from "../../version.ts";

/** The Python module for this version: the module refuses executables of other versions. */
export const pythonModule: string = module.replace('"VERSION"', JSON.stringify(version));
