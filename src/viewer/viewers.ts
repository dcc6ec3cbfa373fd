/** Those who look on: how many there are, and what ends them all. */

export class Viewers {
  end(): void {}
}
