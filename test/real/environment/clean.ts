import { removeAbandoned } from './leftovers.ts';

for (const directory of await removeAbandoned()) console.log(`removed what an interrupted run left: ${directory}`);
