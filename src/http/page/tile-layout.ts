/** Chooses the columns of the wall. */

/** Sources that the wall fits into the window. More are shown as thumbnails that scroll. */
export const maxFittedTiles = 16;

/** Least width of a tile in CSS pixels, by its size. */
const minTileWidths = { small: 150, medium: 300, large: 560 } as const;

/** Tiles of a window at most. The server sends the frames of 64, also those just outside. */
const maxShownTiles = 40;

/** Height to width of the pictures that the layout assumes, so that it is steady. */
const pictureRatio = 3 / 4;

/** Room for tiles in CSS pixels. */
export interface TileRoom {
  readonly width: number;
  readonly height: number;
  readonly gap: number;
  /** Height of a tile's caption. */
  readonly caption: number;
}

export interface TileGrid {
  readonly columns: number;
  /** Height of a tile in CSS pixels. */
  readonly height: number;
}

/** Returns the grid in which `count` tiles fit the room with the largest pictures. */
export function fitTiles(count: number, { width, height, gap, caption }: TileRoom): TileGrid {
  let best: TileGrid & { readonly area: number } = { columns: 1, height: 0, area: -1 };
  for (let columns = 1; columns <= Math.max(1, count); columns++) {
    const rows = Math.ceil(count / columns);
    const tileWidth = (width - (columns - 1) * gap) / columns;
    const tileHeight = (height - (rows - 1) * gap) / rows;
    const pictureWidth = Math.max(0, Math.min(tileWidth, (tileHeight - caption) / pictureRatio));
    const area = pictureWidth * pictureWidth * pictureRatio;
    if (area > best.area) best = { columns, height: Math.floor(tileHeight), area };
  }
  return best;
}

/** Returns the grid of tiles of a size, of which as many lie beside each other as fit. */
export function scrollTiles(
  size: keyof typeof minTileWidths,
  { width, height, gap, caption }: TileRoom,
): TileGrid {
  const minWidth = Math.max(minTileWidths[size], Math.sqrt((width * height) / maxShownTiles));
  const columns = Math.max(1, Math.floor((width + gap) / (minWidth + gap)));
  const tileWidth = (width - (columns - 1) * gap) / columns;
  return { columns, height: Math.floor(tileWidth * pictureRatio + caption) };
}
