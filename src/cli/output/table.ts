/** Tables on standard output: left or right aligned columns, two spaces apart. */
import type { Terminal } from "./terminal.ts";

export interface TableColumn {
  readonly title: string;
  /** Default `left`. */
  readonly align?: "left" | "right";
}

export interface TableOptions {
  /**
   * Rows printed at a time, the title row included; bounds the memory of long tables. The first
   * batch sets the column widths, so wider cells of later batches are not aligned. Default: all.
   */
  readonly batchSize?: number;
}

export class TablePrinter {
  readonly #terminal: Terminal;
  readonly #columns: readonly TableColumn[];
  readonly #batchSize: number;
  #pending: (readonly string[])[];
  /** Set when the first batch is printed. */
  #widths: readonly number[] | undefined;

  constructor(
    terminal: Terminal,
    columns: readonly TableColumn[],
    { batchSize = Infinity }: TableOptions = {},
  ) {
    this.#terminal = terminal;
    this.#columns = columns;
    this.#batchSize = batchSize;
    this.#pending = [columns.map(({ title }) => title)];
  }

  /** @param cells as many as there are columns; not escaped here, see `printable` */
  addRow(cells: readonly string[]): void {
    this.#pending.push(cells);
    if (this.#pending.length >= this.#batchSize) this.flush();
  }

  /** Prints the rows that are pending; the title row comes first. */
  flush(): void {
    const rows = this.#pending;
    if (rows.length === 0) return;
    this.#pending = [];
    const widths = (this.#widths ??= this.#columns.map((_, column) =>
      Math.max(...rows.map((row) => Bun.stringWidth(row[column]!))),
    ));
    this.#terminal.out(rows.map((row) => `${this.#formatRow(row, widths)}\n`).join(""));
  }

  #formatRow(row: readonly string[], widths: readonly number[]): string {
    const cells = row.map((cell, column) => {
      const padding = " ".repeat(Math.max(0, widths[column]! - Bun.stringWidth(cell)));
      return this.#columns[column]!.align === "right" ? padding + cell : cell + padding;
    });
    return cells.join("  ").trimEnd();
  }
}
