// Package restore brings the objects of an application back: it plans what is to happen, and does it.
package restore
