import { make } from "./data.js";
export class Models {
  constructor() {
    this.node = make("section");
  }
}
