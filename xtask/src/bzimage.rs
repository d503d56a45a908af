//! The kernel proper inside a bootable image. Pure: bytes in, bytes out.
//!
//! Field positions are those of Documentation/arch/x86/boot.rst.

use anyhow::{Context, Result, ensure};

/// `setup_sects`: sectors of set-up code behind the boot sector.
const SETUP_SECTORS: usize = 0x1f1;
/// `header`: says that the rest of the header is there.
const MAGIC: (usize, &[u8]) = (0x202, b"HdrS");
/// `payload_offset`, from the first byte behind the set-up code.
const PAYLOAD_OFFSET: usize = 0x248;
/// `payload_length`, the size of the unpacked kernel at its end included.
const PAYLOAD_LENGTH: usize = 0x24c;
/// Bytes of that size.
const UNPACKED_SIZE_BYTES: usize = 4;
const SECTOR_BYTES: usize = 512;

/// The compressed ELF file a bzImage unpacks when it boots.
///
/// # Errors
/// When the bytes are no bzImage of boot protocol 2.08 or later, or are cut short.
pub fn payload(image: &[u8]) -> Result<&[u8]> {
    let magic = image.get(MAGIC.0..MAGIC.0 + MAGIC.1.len());
    ensure!(
        magic == Some(MAGIC.1),
        "no boot header at {:#x}; want a bzImage",
        MAGIC.0
    );
    let sectors = image
        .get(SETUP_SECTORS)
        .copied()
        .context("the boot sector is cut short")?;
    let start = (usize::from(sectors) + 1) * SECTOR_BYTES + word(image, PAYLOAD_OFFSET)?;
    let end = (start + word(image, PAYLOAD_LENGTH)?).saturating_sub(UNPACKED_SIZE_BYTES);
    image.get(start..end).with_context(|| {
        format!(
            "the payload is said to be at {start}..{end}, the image has {} bytes",
            image.len()
        )
    })
}

fn word(image: &[u8], at: usize) -> Result<usize> {
    let bytes = image
        .get(at..at + 4)
        .and_then(|bytes| bytes.try_into().ok());
    let bytes = bytes.context("the boot header is cut short")?;
    Ok(usize::try_from(u32::from_le_bytes(bytes))?)
}

#[cfg(test)]
mod tests {
    use super::payload;

    fn image() -> Vec<u8> {
        let mut image = vec![0; 2048];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x248..0x24c].copy_from_slice(&8_u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&10_u32.to_le_bytes());
        image[1032..1042].copy_from_slice(b"packed\x01\x02\x03\x04");
        image
    }

    #[test]
    fn payload_is_found_without_the_size_behind_it() {
        assert_eq!(payload(&image()).ok(), Some(&b"packed"[..]));
    }

    #[test]
    fn other_files_and_torn_images_are_refused() {
        assert!(payload(b"\x7fELF").is_err());
        assert!(payload(&image()[..0x220]).is_err());
        assert!(payload(&image()[..1036]).is_err());
    }
}
