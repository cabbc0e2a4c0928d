import { mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { billOf } from '../../deploy/images/bill/cyclonedx.ts';
import { licencesIn } from '../../deploy/images/bill/debian.ts';
import { filesIn } from '../../deploy/images/bill/native.ts';
import { distinct, type Part } from '../../deploy/images/bill/part.ts';

const directories: string[] = [];
afterEach(() => {
  for (const directory of directories.splice(0)) rmSync(directory, { recursive: true });
});

const part = (name: string, more: Partial<Part> = {}): Part => {
  return { kind: 'library', name, version: '1', licences: ['MIT'], text: { inImage: '/there' }, ...more };
};

describe('the licences of a Debian package', () => {
  it('are those that its file states, each once', () => {
    const copyright =
      'Format: https://x/1.0/\n\nFiles: *\nLicense: GPL-2+\n text\n\nFiles: a\nLicense: Expat\n\nLicense: GPL-2+\n On Debian systems, /usr/share/common-licenses/GPL-2.\n';
    expect(licencesIn(copyright)).toEqual(['Expat', 'GPL-2+']);
  });

  it('are the texts that a file of the old form refers to', () => {
    const copyright = "see `/usr/share/common-licenses/LGPL-2.1'.\nAlso /usr/share/common-licenses/GPL-2. The end";
    expect(licencesIn(copyright)).toEqual(['GPL-2', 'LGPL-2.1']);
  });

  it('are not made up', () => {
    expect(licencesIn('You may do what you like.')).toEqual([]);
  });
});

describe('what is linked into a program', () => {
  it('is the archives from which the linker took a member, and the start-up objects: no archive that gave nothing, no shared library', () => {
    const directory = realpathSync(mkdtempSync(join(tmpdir(), 'image-bill-')));
    directories.push(directory);
    mkdirSync(join(directory, 'sub'));
    for (const name of ['liba.a', 'libb.a', 'crt1.o', 'libc.so.6']) writeFileSync(join(directory, name), '');
    const map = [
      'Archive member included to satisfy reference by file (symbol)',
      '',
      `${directory}/sub/../liba.a(one.o)`,
      `                              build/main.o (one)`,
      `${directory}/liba.a(two.o)`,
      '',
      'Linker script and memory map',
      '',
      `LOAD ${directory}/crt1.o`,
      'LOAD build/main.o',
      `LOAD ${directory}/liba.a`,
      `LOAD ${directory}/libb.a`,
      `LOAD ${directory}/libc.so.6`,
    ];
    expect(filesIn(map.join('\n'))).toEqual([join(directory, 'crt1.o'), join(directory, 'liba.a')]);
  });
});

describe('the bill', () => {
  const program = part('program', { kind: 'application', licences: ['Apache-2.0'] });
  const other = part('other', { kind: 'application' });
  const shared = part('shared', { purl: 'pkg:npm/shared@1', licences: ['my own'] });
  const pieces = [
    { ...shared, within: ['program'] },
    { ...shared, within: ['other'] },
  ];

  it('has each part once, with all programs that it is within', () => {
    expect(distinct([...pieces, program])).toEqual([{ ...shared, within: ['other', 'program'] }, program]);
  });

  it('says of what each program has pieces, and of what the image consists', () => {
    const bill = billOf({ name: 'snapshot-x', version: '2' }, distinct([program, other, ...pieces, part('base')]));
    expect(bill.metadata.component).toEqual({
      type: 'container',
      'bom-ref': 'image:snapshot-x',
      name: 'snapshot-x',
      version: '2',
    });
    expect(bill.dependencies).toEqual([
      { ref: 'image:snapshot-x', dependsOn: ['base@1', 'other@1', 'program@1'] },
      { ref: 'other@1', dependsOn: ['pkg:npm/shared@1'] },
      { ref: 'program@1', dependsOn: ['pkg:npm/shared@1'] },
    ]);
  });

  it('gives licences of SPDX by their identifiers, and all others by name', () => {
    const bill = billOf({ name: 'x', version: '1' }, [program, { ...shared, within: ['program'] }]);
    expect(bill.components.map(({ licenses }) => licenses)).toEqual([
      [{ license: { id: 'Apache-2.0' } }],
      [{ license: { name: 'my own' } }],
    ]);
  });

  it('says from which sources something was built', () => {
    const built = part('criu', {
      origin: { repository: 'https://example.com/criu.git', commit: 'abc' },
      source: 'criu 1-1',
    });
    expect(billOf({ name: 'x', version: '1' }, [built]).components[0]).toMatchObject({
      externalReferences: [{ type: 'vcs', url: 'https://example.com/criu.git', comment: 'commit abc' }],
      properties: [{ name: 'debian:source', value: 'criu 1-1' }],
    });
  });

  it('is known by a number that depends on its content alone', () => {
    const number = (parts: Part[]) => billOf({ name: 'x', version: '1' }, parts).serialNumber;
    expect(number([program])).toBe(number([program]));
    expect(number([program])).not.toBe(number([other]));
    expect(number([program])).toMatch(/^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-a[0-9a-f]{3}-[0-9a-f]{12}$/);
  });

  it('refuses pieces of a program that it does not have', () => {
    expect(() => billOf({ name: 'x', version: '1' }, pieces)).toThrow(
      /pieces of the program other, and not the program/,
    );
  });
});
